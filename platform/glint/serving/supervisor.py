"""The supervisor of batch jobs: starts drivers, finds those that died, and tells webhooks of the end.

It keeps nothing in memory. What it decides it writes by etag, and a driver's name says which attempt it is, so that
any number of supervisors may run at once and each may stop at any time. Those of other Rays, which know nothing of this
one's drivers, leave a job alone while it is held (core/submission.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from glint.core.books import Books
from glint.core.submission import ALIVE, Drivers, Submission, in_turn
from glint.serving.batch_answers import driver_name

Notify = Callable[[Submission], Awaitable[bool]]
"""Tells a submission's webhook of its end; whether it was taken."""

ROUND_S = 1.0
MAX_NOTICES = 10

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Supervisor:
    """What a round of supervision works with; `max_running` drivers at once."""

    books: Books
    drivers: Drivers
    notify: Notify
    max_running: int = 1

    async def run(self) -> None:
        """Rounds without end. What goes wrong in one is logged: the next may find the store or Ray there again."""
        while True:
            try:
                await self.round()
            except Exception:
                logger.exception("a round of the supervisor failed; the next follows")
            await asyncio.sleep(ROUND_S)

    async def round(self) -> None:
        """Look at every open submission once; the trouble that one makes is logged and leaves the others alone."""
        waiting, running = [], 0
        for submission in await self.books.open_submissions():
            try:
                after = await self._look(submission)
            except Exception:
                logger.exception("job %s could not be looked at; the next round tries again", submission.id)
                running += not submission.ended  # as it may be
                continue
            running += after is True
            if isinstance(after, Submission):
                waiting.append(after)
        for submission in in_turn(waiting):
            if running >= self.max_running:
                break
            try:
                if await self._hold(submission):
                    await asyncio.to_thread(self.drivers.submit, driver_name(submission), submission.id)
                running += 1
            except Exception:
                logger.exception("job %s could not be started; the next round tries again", submission.id)

    async def _look(self, submission: Submission) -> Submission | bool:
        """Whether its driver lives, or the submission where it waits for one."""
        if submission.ended:
            await self._tell(submission)
            return False
        # In this order: a driver that has ended has written its last word before.
        status = await asyncio.to_thread(self.drivers.status, driver_name(submission))
        if status in ALIVE:
            if submission.is_to_renew(self.drivers.cluster):  # until the driver, which starts, does so itself
                await self._hold(submission)
            return True
        if submission.is_held_elsewhere(self.drivers.cluster):
            return True
        after: Submission | None = submission
        if status is not None or submission.cluster not in (None, self.drivers.cluster):
            died = partial(bury, driver=driver_name(submission), cluster=self.drivers.cluster)
            after = await self.books.change(submission.id, died)
        return after if after is not None and not after.ended else False

    async def _hold(self, submission: Submission) -> bool:
        """Say that this Ray has its driver; whether it has, for another one may have been quicker."""
        cluster, driver = self.drivers.cluster, driver_name(submission)
        after = await self.books.change(submission.id, partial(_held, driver=driver, cluster=cluster))
        return after is not None and not after.ended and (after.cluster, driver_name(after)) == (cluster, driver)

    async def _tell(self, submission: Submission) -> None:
        """Tell the webhook, with pauses that double, until it has taken it or was told often enough."""
        due = (submission.ended_at or submission.created_at) + timedelta(seconds=2**submission.notices - 1)
        if datetime.now(UTC) < due:
            return
        taken = await self.notify(submission)
        if not taken and submission.notices + 1 >= MAX_NOTICES:
            logger.warning("the webhook of job %s took none of %d notices", submission.id, MAX_NOTICES)
        await self.books.change(submission.id, partial(_noticed, ended_at=submission.ended_at, taken=taken))


def bury(submission: Submission, driver: str, cluster: str) -> Submission | None:
    """A submission whose driver has died: queued for the next attempt, or failed.

    None where it is not its driver, or another Ray than this one has said that it lives.
    """
    if submission.ended or driver_name(submission) != driver or submission.is_held_elsewhere(cluster):
        return None
    attempts = submission.attempt - submission.first_attempt + 1
    if attempts >= submission.max_attempts:
        return submission.end("failed", f"its driver died, {attempts} times of {submission.max_attempts}; see the logs")
    return submission.released().model_copy(update={"attempt": submission.attempt + 1, "status": "queued"})


def _held(submission: Submission, driver: str, cluster: str) -> Submission | None:
    if submission.ended or driver_name(submission) != driver or submission.is_held_elsewhere(cluster):
        return None
    return submission.held(cluster)


def _noticed(submission: Submission, ended_at: datetime | None, taken: bool) -> Submission | None:
    if submission.ended_at != ended_at:
        return None
    notices = submission.notices + 1
    return submission.model_copy(update={"notices": notices, "notified": taken or notices >= MAX_NOTICES})
