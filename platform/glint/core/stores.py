"""What glint asks of a result store. Every implementation passes tests/stores/ whole."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Collection, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from glint.core.errors import GlintError
from glint.core.job import CHUNK_ROWS, Chunk, Job
from glint.core.label_event import LabelEvent
from glint.core.outcome import DECISIONS, STATUSES, Outcome

T = TypeVar("T")

MAX_PAGE = 1000
"""Outcomes or jobs in one answer."""


@dataclass(frozen=True)
class OutcomeFilter:
    """Which outcomes are wanted; None = any.

    `label` is the most probable class; the bounds of confidence belong to the range, in which an outcome without a
    confidence never lies. Raises GlintError for a status or decision that no outcome can have, or an impossible range.
    """

    status: str | None = None
    label: str | None = None
    decision: str | None = None
    min_confidence: float | None = None
    max_confidence: float | None = None

    def __post_init__(self) -> None:
        if self.status is not None and self.status not in STATUSES:
            raise GlintError(f"status {self.status!r} must be one of {', '.join(STATUSES)}")
        if self.decision is not None and self.decision not in DECISIONS:
            raise GlintError(f"decision {self.decision!r} must be one of {', '.join(DECISIONS)}")
        low = 0.0 if self.min_confidence is None else self.min_confidence
        high = 1.0 if self.max_confidence is None else self.max_confidence
        if not 0 <= low <= high <= 1:
            raise GlintError(f"confidence must be a range within 0 and 1, got {low} to {high}")


EVERY = OutcomeFilter()
"""The filter that every outcome passes."""


@dataclass(frozen=True)
class Page:
    """Some outcomes in id order, and the cursor from which the next page starts (None = no more)."""

    outcomes: tuple[Outcome, ...]
    cursor: str | None


@dataclass(frozen=True)
class LabelPage:
    """Some label events, oldest first, and the cursor from which the next page starts (None = no more)."""

    events: tuple[LabelEvent, ...]
    cursor: str | None


ABSENT = ""
"""The etag of what is not there yet: put with it, a document replaces nothing."""


@dataclass(frozen=True)
class Document:
    """A document of the books: `kind` and `id` name it, `sort_key` orders its kind, `group` and `open` are filters."""

    kind: str
    id: str
    sort_key: str
    body: Mapping[str, Any]
    group: str = ""
    open: bool = False


@dataclass(frozen=True)
class DocumentPage:
    """Some documents, the greatest sort key first, and the cursor from which the next page starts (None = no more)."""

    documents: tuple[Document, ...]
    cursor: str | None


class JobStore(Protocol):
    """The books of batch jobs."""

    async def put_job(self, job: Job, etag: str | None = None) -> str:
        """Insert or replace a job by its id; returns its new etag.

        With an etag, the job is replaced only if it is still the one that has this etag, or else ConflictError raised.
        """

    async def get_job(self, job_id: str) -> Job | None:
        """The job, or None when there is none of that id."""

    async def get_job_and_etag(self, job_id: str) -> tuple[Job, str] | None:
        """The job with the etag by which to replace it, or None when there is none of that id."""

    async def jobs(self, limit: int = 100) -> list[Job]:
        """The newest jobs first; limit is 1 to MAX_PAGE."""

    async def delete_job(self, job_id: str) -> None:
        """Take away the job, its chunks and its outcomes; what is not there stays so. The job goes last."""


class DocumentStore(Protocol):
    """Whatever else is kept in books, by kind: core/books.py says what."""

    async def put_document(self, document: Document, etag: str | None = None) -> str:
        """Insert or replace a document by its kind and id; returns its new etag.

        With an etag, it is replaced only if it is still the one that has this etag; with ABSENT, it is inserted only
        if there is none. Otherwise ConflictError is raised.
        """

    async def get_document(self, kind: str, id: str) -> tuple[Document, str] | None:
        """The document and its etag, or None when there is none."""

    async def documents(
        self, kind: str, group: str | None = None, open: bool | None = None, cursor: str | None = None, limit: int = 100
    ) -> DocumentPage:
        """A page of the documents of a kind, or of those of a group, or only the open ones; limit is 1 to MAX_PAGE."""

    async def delete_document(self, kind: str, id: str) -> None:
        """Take it away; one that is not there stays so."""


class OutcomeStore(Protocol):
    """Outcomes, written a chunk at a time."""

    async def put_chunk(self, chunk: Chunk, outcomes: Sequence[Outcome]) -> None:
        """Write a chunk's outcomes and its document in one transaction; again, it replaces them.

        A chunk comes with the same images each time, for a job's input is frozen; no two of its images are the same.
        One with a time to live goes after it with its outcomes.
        """

    def chunks(self, job_id: str) -> AsyncIterator[Chunk]:
        """Every chunk document of a job, in chunk order."""

    async def page(
        self, job_id: str, where: OutcomeFilter = EVERY, cursor: str | None = None, limit: int = 100
    ) -> Page:
        """A page of a job's outcomes in id order; rows added meanwhile never make it repeat or skip one that stood.

        limit is 1 to MAX_PAGE.
        """

    async def forget_chunks(self, job_id: str, numbers: Collection[int]) -> None:
        """Take away these chunk documents, so that the job scores them again; their outcomes stay until then."""


class LabelStore(Protocol):
    """Label events, which are added and never changed."""

    async def put_label_events(self, events: Sequence[LabelEvent]) -> None:
        """Add events; one that is there already, by its id, stays one."""

    async def label_events(self, uri: str | None = None, cursor: str | None = None, limit: int = 100) -> LabelPage:
        """A page of all events, or of one image's, oldest first; limit is 1 to MAX_PAGE."""


class ResultStore(JobStore, DocumentStore, OutcomeStore, LabelStore, Protocol):
    """All of a store, and its end."""

    async def close(self) -> None:
        """Release the connection; the store opens again when it is next used."""


def partition_key(job_id: str, chunk: int, num_partitions: int) -> str:
    """Where a chunk and its outcomes lie: a job spreads over all partitions, a chunk lies whole in one."""
    return f"{job_id}|{chunk % num_partitions}"


def check_chunk(chunk: Chunk, outcomes: Sequence[Outcome]) -> None:
    """Raise ValueError unless these outcomes, at most CHUNK_ROWS, are the ones that the chunk document counts."""
    if not len({row.id for row in outcomes}) == len(outcomes) == chunk.num_images <= CHUNK_ROWS:
        raise ValueError(
            f"chunk {chunk.chunk} of job {chunk.job_id} counts {chunk.num_images} images and comes with "
            f"{len(outcomes)} outcomes; they must be the same number of distinct ones, at most {CHUNK_ROWS}"
        )
    if any(row.job_id != chunk.job_id for row in outcomes):
        raise ValueError(f"chunk {chunk.chunk} of job {chunk.job_id} comes with outcomes of another job")


def check_limit(limit: int) -> None:
    """Raise GlintError unless a page may be as large as this."""
    if not 1 <= limit <= MAX_PAGE:
        raise GlintError(f"limit must be 1 to {MAX_PAGE}, got {limit}")


class Bridge:
    """Runs a store's coroutines from synchronous code, on one event loop in a thread of its own.

    An asynchronous client belongs to the loop that it was opened on, so every call goes to the same one.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="glint-store", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Wait for the coroutine and return its result, or raise what it raised."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def collect(self, items: AsyncIterator[T]) -> list[T]:
        """Everything an asynchronous iterator yields."""

        async def gather() -> list[T]:
            return [item async for item in items]

        return self.run(gather())

    def iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        """The same, one after another."""

        async def following() -> list[T]:
            return [item async for item in _first(items)]

        while found := self.run(following()):
            yield from found

    def close(self) -> None:
        """Stop the loop and its thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _first(items: AsyncIterator[T]) -> AsyncIterator[T]:
    """Up to MAX_PAGE further ones; the rest stays to come."""
    for _ in range(MAX_PAGE):
        try:
            yield await anext(items)
        except StopAsyncIteration:
            return


async def outcome_pages(store: OutcomeStore, job_id: str, where: OutcomeFilter = EVERY) -> AsyncIterator[list[Outcome]]:
    """All outcomes of a job that pass, in id order, a page at a time."""
    cursor = None
    while True:
        page = await store.page(job_id, where, cursor, MAX_PAGE)
        yield list(page.outcomes)
        cursor = page.cursor
        if cursor is None:
            return
