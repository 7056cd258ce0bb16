"""The driver of one batch job, in a process of its own: what the supervisor submits to Ray.

    python -m glint.cli.job --job ID

It exits with 0 when the books say how the job ended, a mistake of the user's included. Any other end is its death, such
as of a store that stays away, and the supervisor starts another one.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from glint.cli.interruption import heed_sigterm
from glint.core.errors import GlintError, StoreError
from glint.core.job_options import job_options
from glint.core.submission import Submission, SubmissionStatus
from glint.settings import Settings, quieten, read_settings

if TYPE_CHECKING:
    from glint.core.progress import Progress
    from glint.pipelines.batch import BatchResult
    from glint.pipelines.batch_run import BatchRun
    from glint.wiring.models import Model

WATCH_S = 1.5
"""Between looks of a driver at what the books say of it."""
FORCED_AFTER_S = 2.0
"""That a driver which they end has to end in order; on a busy machine Python alone may take longer than that."""
OF_ITS_OWN = "a Ray of the driver's own"
To = Callable[[Submission], Submission | None]
OWN_POLICY = 0
"""The number of the policy that a bundle came with."""


def main() -> None:
    """Drive the job that --job names."""
    parser = argparse.ArgumentParser(description="Drives one batch job that was submitted to glint.")
    parser.add_argument("--job", required=True, help="its id")
    heed_sigterm()
    try:
        settings = read_settings()
        quieten(settings)
        drive(parser.parse_args().job, settings)
    except GlintError as error:
        print(f"glint: {error}", file=sys.stderr)
        sys.exit(2)


def drive(job_id: str, settings: Settings) -> None:
    """Score what the job has still to do and write its end into the books."""
    from glint.cli.console import progress

    submission = _begin(job_id, settings)
    if submission is None:
        return
    try:
        with progress() as told, _ended_by_the_books(submission, settings):
            result = _score(submission, settings, told)
    except StoreError:
        raise  # it may be back for the next attempt
    except GlintError as mistake:
        said = str(mistake).removeprefix("--")  # an option of the command line is a field of what was submitted
        print(f"glint: {said}", file=sys.stderr)
        _end(submission, settings, "failed", said)
    except KeyboardInterrupt:
        print(f"glint: job {job_id} was told to stop; what is done stays", file=sys.stderr)
        with suppress(GlintError):  # it is taken for gone LEASE later
            _change(job_id, settings, lambda one: one.released() if _is_same(one, submission) else None)
    else:
        print(result.model_dump_json())
        _end(submission, settings, _ENDS[result.status], result.error)


_ENDS: dict[str, SubmissionStatus] = {"completed": "completed", "failed": "failed", "stopped": "stopped"}


def _score(submission: Submission, settings: Settings, told: Progress) -> BatchResult:
    from glint.pipelines.batch import run_batch
    from glint.wiring import check_store, check_store_answers, start_ray

    if warning := check_store_answers(settings):
        told.say(warning)
    start_ray(settings)
    check_store(settings)
    return run_batch(_open_run(submission, settings, told), told, settings.node_price)


def _open_run(submission: Submission, settings: Settings, told: Progress) -> BatchRun:
    """The run that the submission asks for; what an earlier attempt has pinned stays so."""
    from glint.core.stores import Bridge
    from glint.pipelines.batch_run import BatchRun
    from glint.pipelines.listing import open_input
    from glint.wiring import open_allowed, open_images, open_model, open_store, pinned, pinned_preparer

    bridge, store = Bridge(), open_store(settings)
    known = bridge.run(store.get_job(submission.id))
    bridge.run(store.close())
    bridge.close()
    options = job_options({"ttl_days": settings.outcome_ttl_days} | submission.options)
    model = open_model(known.model_uri if known else submission.model, settings, options.engine)
    if known is not None:
        model = _with_policy(model, known.model.policy, settings)
    asked = submission.input
    if known and Path(known.manifest).exists():
        asked = asked.model_copy(update={"uri": known.manifest, "uris": None})
    images = open_images(settings)
    source, manifest = open_input(
        asked, images, settings.home_path, submission.id, open_allowed(settings).check_input, told
    )
    return BatchRun(
        model_uri=model.uri,
        model=model.ref,
        open_predictor=pinned(model, settings),
        open_preparer=pinned_preparer(model, settings),
        input=known.input if known else source,
        manifest=manifest,
        images=images,
        store=store,
        home=settings.home_path,
        job=submission.id,
        options=options,
    )


def _with_policy(model: Model, digest: str, settings: Settings) -> Model:
    """The model with the policy that its job began with, whichever the registry holds active by now.

    Where nobody has that policy any more the model stays as it is, which run_batch refuses.
    """
    from glint.core.policy import Policy
    from glint.vision.bundle import Bundle
    from glint.wiring.storage import open_registry

    if model.bundle.policy.digest == digest or model.name is None or model.version is None:
        return model
    registry = open_registry(settings)
    for number in (OWN_POLICY, *registry.policies(model.name, model.version)):
        text = registry.policy(model.name, model.version, number)
        bundle = Bundle(model.bundle.directory, Policy.model_validate_json(text) if text else None)
        if bundle.policy.digest == digest:
            return replace(model, bundle=bundle)
    return model


@contextmanager
def _ended_by_the_books(begun: Submission, settings: Settings) -> Iterator[None]:
    """Interrupts this process once the books say that it is over: also where nobody could tell Ray to stop it.

    So does a later attempt, a driver on another Ray, and the deletion of the job. Until then the books are told that it
    lives.
    """
    done, cluster = threading.Event(), _cluster(settings)

    def renewed(now: Submission) -> Submission | None:
        return now.held(cluster) if _is_same(now, begun) and not now.ended and now.is_to_renew(cluster) else None

    def watch() -> None:
        with _books(settings) as change:
            while not done.wait(WATCH_S):
                with suppress(GlintError):  # the next look may find the store again
                    now = change(begun.id, renewed)
                    if now is None or now.ended or not _is_same(now, begun):
                        signal.setitimer(signal.ITIMER_REAL, FORCED_AFTER_S)  # SIGALRM, which ends a process
                        os.kill(os.getpid(), signal.SIGTERM)
                        return

    watching = threading.Thread(target=watch, name="glint-books", daemon=True)
    watching.start()
    try:
        yield
    finally:
        done.set()


def _begin(job_id: str, settings: Settings) -> Submission | None:
    """The submission, marked as running; None where it has ended. Raises GlintError where there is none."""
    cluster = _cluster(settings)

    def begin(submission: Submission) -> Submission | None:
        if submission.ended or submission.is_held_elsewhere(cluster):
            return None
        return submission.held(cluster).model_copy(update={"status": "running", "started_at": datetime.now(UTC)})

    after = _change(job_id, settings, begin)
    if after is None:
        raise GlintError(f"--job {job_id!r} is no job that was submitted; glint batch submit makes one")
    if after.ended:
        print(f"glint: job {job_id} is {after.status} already", file=sys.stderr)
        return None
    if after.cluster != cluster:
        raise GlintError(f"--job {job_id!r} is driven on another Ray, that at {after.cluster}")
    return after


def _cluster(settings: Settings) -> str:
    return settings.ray_address or OF_ITS_OWN


def _is_same(now: Submission, begun: Submission) -> bool:
    """Whether the job is still this driver's: neither another attempt's nor one of another Ray."""
    return (now.attempt, now.cluster) == (begun.attempt, begun.cluster)


def _end(begun: Submission, settings: Settings, status: SubmissionStatus, error: str | None = None) -> None:
    """Write the end, unless somebody has written another, or another attempt has begun."""

    def end(submission: Submission) -> Submission | None:
        mine = not submission.ended and _is_same(submission, begun)
        return submission.end(status, error).released() if mine else None

    _change(begun.id, settings, end)


def _change(job_id: str, settings: Settings, to: To) -> Submission | None:
    with _books(settings) as change:
        return change(job_id, to)


@contextmanager
def _books(settings: Settings) -> Iterator[Callable[[str, To], Submission | None]]:
    """What changes a job in the books, by a store that is open until the block ends."""
    from glint.core.books import Books
    from glint.core.stores import Bridge
    from glint.wiring import open_store

    bridge, store = Bridge(), open_store(settings)
    try:
        yield lambda job_id, to: bridge.run(Books(store).change(job_id, to))
    finally:
        bridge.run(store.close())
        bridge.close()


if __name__ == "__main__":
    main()
