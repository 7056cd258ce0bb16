"""Batch endpoints and their jobs, for programs that talk to a running glint.

with glint.Client("http://127.0.0.1:8000") as client:
    job = client.batch.submit("boards", "az://images/line-4")
    print(client.batch.wait(job.id).statuses)
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import httpx

from glint import batch_calls as calls
from glint.batch_calls import Call
from glint.core.outcome import Outcome
from glint.core.submission import WAITING
from glint.serving.batch_answers import JobProgress

POLL_S = 1.0
POLL_SHARE = 20
"""An answer sums over all that a job has written, so that pauses between them grow with what they take."""
P = ParamSpec("P")
T = TypeVar("T")


def _pause_s(answer_s: float) -> float:
    """Until a job is looked at again, after an answer that took so long."""
    return max(POLL_S, POLL_SHARE * answer_s)


def _now(call: Callable[P, Call[T]]) -> Callable[Concatenate[Batch, P], T]:
    """A method that makes the call."""

    @functools.wraps(call)
    def method(self: Batch, /, *arguments: P.args, **named: P.kwargs) -> T:
        return self.ask(call(*arguments, **named))

    return method


def _later(call: Callable[P, Call[T]]) -> Callable[Concatenate[AsyncBatch, P], Coroutine[Any, Any, T]]:
    """A method that makes the call, to be awaited."""

    @functools.wraps(call)
    async def method(self: AsyncBatch, /, *arguments: P.args, **named: P.kwargs) -> T:
        return await self.ask(call(*arguments, **named))

    return method


class Batch:
    """What a server's /v1/batch can do, by `request` of a Client; methods raise as the Client's do."""

    def __init__(self, request: Callable[..., httpx.Response]) -> None:
        self._request = request

    create = _now(calls.create)
    endpoints = _now(calls.endpoints)
    endpoint = _now(calls.endpoint)
    deploy = _now(calls.deploy)
    withdraw = _now(calls.withdraw)
    set_default = _now(calls.set_default)
    delete_endpoint = _now(calls.delete_endpoint)
    submit = _now(calls.submit)
    jobs = _now(calls.jobs)
    job = _now(calls.job)
    progress = _now(calls.progress)
    logs = _now(calls.logs)
    cancel = _now(calls.cancel)
    retry = _now(calls.retry)
    delete_job = _now(calls.delete_job)
    errors = _now(calls.errors)

    def watch(self, id: str) -> Iterator[JobProgress]:
        """How far a job is, again and again until it has ended."""
        while True:
            began = time.monotonic()
            progress = self.progress(id)
            pause_s = _pause_s(time.monotonic() - began)
            yield progress
            if progress.status not in WAITING:
                return
            time.sleep(pause_s)

    def wait(self, id: str) -> JobProgress:
        """What it came to, once it has ended."""
        return list(self.watch(id))[-1]

    def results(self, id: str, **where: Any) -> Iterator[Outcome]:
        """The outcomes in the order of their ids; `where` by status, label, decision, min_ and max_confidence."""
        cursor = None
        while True:
            page = self.ask(calls.result_page(id, cursor, where))
            yield from page.outcomes
            cursor = page.cursor
            if cursor is None:
                return

    def save_results(self, id: str, out: Path, format: str, **where: Any) -> None:
        """Write all of them into a CSV or Parquet file."""
        out.write_bytes(self.ask(calls.result_file(id, format, where)))

    def ask(self, call: Call[T]) -> T:
        """The answer to any of `batch_calls`."""
        return call.read(self._request(**call.sent).content)


class AsyncBatch:
    """The same for asyncio, by `request` of an AsyncClient."""

    def __init__(self, request: Callable[..., Awaitable[httpx.Response]]) -> None:
        self._request = request

    create = _later(calls.create)
    endpoints = _later(calls.endpoints)
    endpoint = _later(calls.endpoint)
    deploy = _later(calls.deploy)
    withdraw = _later(calls.withdraw)
    set_default = _later(calls.set_default)
    delete_endpoint = _later(calls.delete_endpoint)
    submit = _later(calls.submit)
    jobs = _later(calls.jobs)
    job = _later(calls.job)
    progress = _later(calls.progress)
    logs = _later(calls.logs)
    cancel = _later(calls.cancel)
    retry = _later(calls.retry)
    delete_job = _later(calls.delete_job)
    errors = _later(calls.errors)

    async def watch(self, id: str) -> AsyncIterator[JobProgress]:
        """How far a job is, again and again until it has ended."""
        while True:
            began = time.monotonic()
            progress = await self.progress(id)
            pause_s = _pause_s(time.monotonic() - began)
            yield progress
            if progress.status not in WAITING:
                return
            await asyncio.sleep(pause_s)

    async def wait(self, id: str) -> JobProgress:
        """What it came to, once it has ended."""
        return [progress async for progress in self.watch(id)][-1]

    async def results(self, id: str, **where: Any) -> AsyncIterator[Outcome]:
        """The outcomes in the order of their ids; `where` by status, label, decision, min_ and max_confidence."""
        cursor = None
        while True:
            page = await self.ask(calls.result_page(id, cursor, where))
            for outcome in page.outcomes:
                yield outcome
            cursor = page.cursor
            if cursor is None:
                return

    async def save_results(self, id: str, out: Path, format: str, **where: Any) -> None:
        """Write all of them into a CSV or Parquet file."""
        data = await self.ask(calls.result_file(id, format, where))
        out.write_bytes(data)

    async def ask(self, call: Call[T]) -> T:
        """The answer to any of `batch_calls`."""
        return call.read((await self._request(**call.sent)).content)
