"""What the batch API does with endpoints and jobs, apart from HTTP: every change goes through the store by etag."""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import AsyncIterator, Callable, Collection
from pathlib import Path

from glint.core.allowed import Allowed, check_there
from glint.core.books import Books
from glint.core.endpoint import Deployment, Endpoint
from glint.core.errors import ConflictError, GlintError, MissingError
from glint.core.job_options import FIXED, job_options
from glint.core.names import check_name
from glint.core.outcome import STATUSES, Outcome
from glint.core.stores import ABSENT, EVERY, OutcomeFilter, ResultStore, outcome_pages
from glint.core.submission import ALIVE, Drivers, Submission, request_digest, submission_id
from glint.serving.batch_answers import ErrorGroup, Errors, JobProgress, JobRequest, NewEndpoint, Retry, driver_name
from glint.serving.progress import job_progress

MAX_ERRORS = 20_000
MAX_EXAMPLES = 3
DRIVER_ENDS_S = 10.0
"""That a driver may take to end once its job has: its process ends Ray's part in it."""
POLL_S = 0.25

logger = logging.getLogger(__name__)


class Desk:
    """Endpoints and jobs in a store, for whoever may ask for what `allowed` lists.

    `check_model` raises GlintError where there is no model of a name; it may block. `home` is GLINT_HOME. Raises
    GlintError for mistakes.
    """

    def __init__(
        self, store: ResultStore, drivers: Drivers, allowed: Allowed, check_model: Callable[[str], None], home: Path
    ) -> None:
        self.store = store
        self.books = Books(store)
        self._drivers = drivers
        self._allowed = allowed
        self._check_model = check_model
        self._home = home

    # Endpoints

    async def create(self, asked: NewEndpoint) -> Endpoint:
        """A new endpoint; ConflictError where there is one of that name."""
        check_name("name", asked.name)
        endpoint = Endpoint(name=asked.name)
        for name, deployment in asked.deployments.items():
            endpoint = endpoint.deploy(name, await self._checked(name, deployment))
        if asked.default is not None:
            endpoint = endpoint.with_default(asked.default)
        try:
            await self.books.put_endpoint(endpoint, ABSENT)
        except ConflictError:
            raise ConflictError(f"there is an endpoint {asked.name!r} already") from None
        return endpoint

    async def endpoint(self, name: str) -> Endpoint:
        """The endpoint of that name."""
        return (await self._endpoint(name))[0]

    async def deploy(self, name: str, deployment_name: str, deployment: Deployment) -> Endpoint:
        """With that deployment added or replaced."""
        checked = await self._checked(deployment_name, deployment)
        return await self._change(name, lambda endpoint: endpoint.deploy(deployment_name, checked))

    async def withdraw(self, name: str, deployment_name: str) -> Endpoint:
        """Without that deployment."""
        return await self._change(name, lambda endpoint: endpoint.withdraw(deployment_name))

    async def set_default(self, name: str, deployment_name: str) -> Endpoint:
        """With that deployment as the default of the jobs to come."""
        return await self._change(name, lambda endpoint: endpoint.with_default(deployment_name))

    async def delete(self, name: str) -> None:
        """Without the endpoint; its jobs stay."""
        await self._endpoint(name)
        await self.books.delete_endpoint(name)

    async def _endpoint(self, name: str) -> tuple[Endpoint, str]:
        found = await self.books.endpoint(name)
        if found is None:
            known = ", ".join(one.name for one in await self.books.endpoints()) or "none yet"
            raise MissingError(f"there is no endpoint {name!r}; there are {known}")
        return found

    async def _change(self, name: str, to: Callable[[Endpoint], Endpoint]) -> Endpoint:
        endpoint, etag = await self._endpoint(name)
        changed = to(endpoint)
        await self.books.put_endpoint(changed, etag)
        return changed

    async def _checked(self, name: str, deployment: Deployment) -> Deployment:
        check_name("deployment", name)
        self._allowed.check_model(deployment.model)
        job_options(deployment.options)
        await asyncio.to_thread(self._check_model, deployment.model)
        return deployment

    # Jobs

    async def submit(self, endpoint_name: str, asked: JobRequest, key: str | None) -> Submission:
        """A job, queued; under the same key the one that was queued before, ConflictError if it was another request."""
        id, digest = submission_id(endpoint_name, key), request_digest(asked.model_dump(mode="json"))
        # First of all: whatever became of endpoint, deployment and settings, it is the same job.
        if key is not None and (known := await self.books.submission(id)):
            return _same(known[0], digest, key)
        endpoint = await self.endpoint(endpoint_name)
        name, deployment = endpoint.deployment(asked.deployment)
        options = {**deployment.options, **asked.options}
        job_options(options)
        self._allowed.check_inputs(asked.input.named)
        if asked.input.uri is not None:
            await asyncio.to_thread(check_there, asked.input.uri)
        if asked.webhook is not None:
            self._allowed.check_webhook(asked.webhook)
        submission = Submission(
            id=id,
            endpoint=endpoint_name,
            deployment=name,
            model=deployment.model,
            input=asked.input,
            options=options,
            priority=asked.priority,
            max_attempts=asked.max_attempts,
            webhook=asked.webhook,
            request_digest=digest,
        )
        try:
            await self.books.put_submission(submission, ABSENT)
        except ConflictError:  # somebody was quicker with the same key
            return _same(await self.job(id), digest, key)
        return submission

    async def job(self, id: str) -> Submission:
        """The job of that id."""
        found = await self.books.submission(id)
        if found is None:
            raise MissingError(f"there is no job {id!r}")
        return found[0]

    async def cancel(self, id: str) -> Submission:
        """Cancelled, its driver told to stop; what it has written stays. One that has ended stays as it is.

        Where Ray does not answer, the driver ends when it next looks into the books.
        """
        await self.job(id)
        after = await self.books.change(id, lambda one: None if one.ended else one.end("cancelled"))
        if after is None:
            raise MissingError(f"there is no job {id!r}")
        if after.status == "cancelled":
            try:
                await asyncio.to_thread(self._drivers.stop, driver_name(after))
            except Exception:  # cancelled it is: a driver that nobody could tell looks into the books itself
                logger.exception("the driver of job %s could not be told to stop", id)
        return after

    async def retry(self, id: str, asked: Retry) -> Submission:
        """Queued again; ConflictError for a job that has not ended."""
        before = await self._ended(id)
        options = {**before.options, **asked.options}
        began, asks = job_options(before.options), job_options(options)
        for name in FIXED:
            if getattr(asks, name) != getattr(began, name):
                raise GlintError(f"options.{name} of job {id} stays {getattr(began, name)}, with which it was begun")
        again = before.again().model_copy(update={"options": options})
        if asked.what != "missing":
            # Claimed before any chunk is forgotten, and queued after that: a driver begins by what chunks there are.
            attempts = {"attempt": again.attempt, "first_attempt": again.first_attempt}
            before = await self._replace(before, before.model_copy(update=attempts))
            chunks, every = self.store.chunks(id), asked.what == "all"
            wanted = {one.chunk async for one in chunks if every or set(one.statuses) - {"ok"}}
            await self.store.forget_chunks(id, wanted)
        return await self._replace(before, again)

    async def _replace(self, before: Submission, after: Submission) -> Submission:
        """The submission by another one; ConflictError where it is not what it was any more."""
        if await self.books.change(before.id, lambda one: after if one == before else None) != after:
            raise ConflictError(f"job {before.id} was changed meanwhile")
        return after

    async def delete_job(self, id: str) -> None:
        """Without the job, its outcomes, files and place in the books.

        ConflictError for one that has not ended, and where its driver does not end within DRIVER_ENDS_S after it: its
        last words would bring the job back.
        """
        deadline = time.monotonic() + DRIVER_ENDS_S
        while await self._has_driver(await self._ended(id)):
            if time.monotonic() >= deadline:
                raise ConflictError(f"the driver of job {id} has not ended yet; try again in a few seconds")
            await asyncio.sleep(POLL_S)
        job = await self.store.get_job(id)
        await self.store.delete_job(id)
        # Also where no job is known: a driver lists and freezes the input before it writes of one.
        frozen = Path(job.manifest) if job else self._home / "jobs" / id / "manifest.parquet"
        await asyncio.to_thread(_remove_files, id, frozen)
        await self.books.delete_submission(id)

    async def _has_driver(self, submission: Submission) -> bool:
        status = await asyncio.to_thread(self._drivers.status, driver_name(submission))
        return status in ALIVE or submission.is_held_elsewhere(self._drivers.cluster)

    async def _ended(self, id: str) -> Submission:
        submission = await self.job(id)
        if not submission.ended:
            raise ConflictError(f"job {id} is {submission.status}; cancel it first")
        return submission

    async def logs(self, id: str) -> tuple[int, str]:
        """The latest attempt and what its driver has printed."""
        submission = await self.job(id)
        driver = driver_name(submission)
        text = await asyncio.to_thread(self._drivers.logs, driver)
        if not text and submission.started_at and await asyncio.to_thread(self._drivers.status, driver) is None:
            which = f"at {submission.cluster}" if submission.cluster else "on which it ran"
            text = f"This server's Ray knows no driver {driver}: what it prints is with the Ray {which}.\n"
        return submission.attempt, text

    async def progress(self, id: str) -> JobProgress:
        """How far the job is."""
        return await job_progress(self.store, await self.job(id))

    async def outcomes(self, id: str, where: OutcomeFilter = EVERY) -> AsyncIterator[list[Outcome]]:
        """All outcomes that pass, a page at a time."""
        async for page in outcome_pages(self.store, id, where):
            yield page

    async def errors(self, id: str) -> Errors:
        """Outcomes other than ok by status and reason, of the first MAX_ERRORS."""
        await self.job(id)
        groups: dict[tuple[str, str], list[Outcome]] = {}
        counts: dict[tuple[str, str], int] = {}
        counted, complete = 0, True
        for status in await self._bad_statuses(id):
            async for page in self.outcomes(id, OutcomeFilter(status=status)):
                for outcome in page:
                    key = (outcome.status, outcome.error.type if outcome.error else "unknown")
                    counts[key] = counts.get(key, 0) + 1
                    if len(examples := groups.setdefault(key, [])) < MAX_EXAMPLES:
                        examples.append(outcome)
                counted += len(page)
                if counted >= MAX_ERRORS:
                    complete = False
                    break
        found = [_group(key, counts[key], examples) for key, examples in groups.items()]
        return Errors(groups=tuple(sorted(found, key=lambda one: -one.count)), counted=counted, complete=complete)

    async def _bad_statuses(self, id: str) -> Collection[str]:
        """The statuses other than ok that the job has, by its chunks."""
        found = {status async for chunk in self.store.chunks(id) for status in chunk.statuses}
        return [status for status in STATUSES if status in found and status != "ok"]


def _same(known: Submission, digest: str, key: str | None) -> Submission:
    """The job that a key stands for; ConflictError where that was another request."""
    if known.request_digest != digest:
        raise ConflictError(f"Idempotency-Key {key!r} was used for another request, job {known.id}")
    return known


def _remove_files(id: str, frozen: Path) -> None:
    """The folder jobs/ID with the frozen input; what cannot be removed stays, unused by a job of the same id."""
    folder = frozen.parent
    if folder.parts[-2:] == ("jobs", id):
        shutil.rmtree(folder, ignore_errors=True)


def _group(key: tuple[str, str], count: int, outcomes: list[Outcome]) -> ErrorGroup:
    first = outcomes[0].error
    return ErrorGroup(
        status=key[0],
        reason=key[1],
        count=count,
        message=first.message if first else "",
        examples=tuple(outcome.uri for outcome in outcomes),
    )
