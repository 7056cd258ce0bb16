"""The supervisor of batch jobs: starts drivers, finds those that died, and tells webhooks of the end.

It keeps nothing in memory. What it decides it writes by etag, and a driver's name says which attempt it is, so that
any number of supervisors may run at once and each may stop at any time.
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
        """Look at every open submission once."""
        waiting, running = [], 0
        for submission in await self.books.open_submissions():
            if submission.ended:
                await self._tell(submission)
                continue
            # In this order: a driver that has ended has written its last word before.
            status = await asyncio.to_thread(self.drivers.status, submission.driver)
            if status in ALIVE:
                running += 1
                continue
            after: Submission | None = submission
            if status is not None:
                after = await self.books.change(submission.id, partial(bury, driver=submission.driver))
            if after is not None and not after.ended:
                waiting.append(after)
        for submission in in_turn(waiting)[: max(0, self.max_running - running)]:
            await asyncio.to_thread(self.drivers.submit, submission.driver, submission.id)

    async def _tell(self, submission: Submission) -> None:
        """Tell the webhook, with pauses that double, until it has taken it or was told often enough."""
        due = (submission.ended_at or submission.created_at) + timedelta(seconds=2**submission.notices - 1)
        if datetime.now(UTC) < due:
            return
        taken = await self.notify(submission)
        if not taken and submission.notices + 1 >= MAX_NOTICES:
            logger.warning("the webhook of job %s took none of %d notices", submission.id, MAX_NOTICES)
        await self.books.change(submission.id, partial(_noticed, ended_at=submission.ended_at, taken=taken))


def bury(submission: Submission, driver: str) -> Submission | None:
    """A submission whose driver has died: queued for the next attempt, or failed; None where it is not its driver."""
    if submission.ended or submission.driver != driver:
        return None
    attempts = submission.attempt - submission.first_attempt + 1
    if attempts >= submission.max_attempts:
        return submission.end("failed", f"its driver died, {attempts} times of {submission.max_attempts}; see the logs")
    return submission.model_copy(update={"attempt": submission.attempt + 1, "status": "queued"})


def _noticed(submission: Submission, ended_at: datetime | None, taken: bool) -> Submission | None:
    if submission.ended_at != ended_at:
        return None
    notices = submission.notices + 1
    return submission.model_copy(update={"notices": notices, "notified": taken or notices >= MAX_NOTICES})
