"""The embedded result store: one SQLite file on one machine, written by any number of processes at once."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from glint.adapters import sqlite_documents
from glint.adapters.sqlite_file import connect, named_failures, transaction
from glint.core.errors import ConflictError
from glint.core.job import Chunk, Job
from glint.core.label_event import LabelEvent, sort_key
from glint.core.outcome import Outcome
from glint.core.stores import (
    EVERY,
    Document,
    DocumentPage,
    LabelPage,
    OutcomeFilter,
    Page,
    check_chunk,
    check_limit,
    partition_key,
)

T = TypeVar("T")

CHUNKS_AT_ONCE = 1000

_NEW_ETAG = "lower(hex(randomblob(8)))"
_PUT_OUTCOME = f"""
INSERT INTO outcomes VALUES (?, ?, ?, ?, ?, ?, ?, {_NEW_ETAG}, ?) ON CONFLICT (pk, id) DO UPDATE SET
    status = excluded.status, label = excluded.label, decision = excluded.decision,
    confidence = excluded.confidence, document = excluded.document, etag = excluded.etag,
    expires = excluded.expires
"""
_PUT_CHUNK = f"INSERT OR REPLACE INTO chunks VALUES (?, ?, ?, {_NEW_ETAG}, ?)"
_PUT_JOB = f"INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, {_NEW_ETAG}) RETURNING etag"
_LIVES = "(expires IS NULL OR expires > ?)"
_PUT_LABEL_EVENT = "INSERT OR REPLACE INTO label_events VALUES (?, ?, ?)"


class SqliteStore:
    """A result store in one file, made when it is first used; its folder too.

    It travels to other processes by its path alone. Each works through a connection of its own; within a process
    threads and event loops may share the store, which does one thing at a time. All methods raise GlintError where
    the file cannot be used. `num_partitions` belongs to the file: it is opened with the number that it was made with.
    """

    def __init__(self, path: Path, num_partitions: int = 4) -> None:
        self.path = path.expanduser().absolute()
        self.num_partitions = num_partitions
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def __reduce__(self) -> tuple[type[SqliteStore], tuple[Path, int]]:
        return SqliteStore, (self.path, self.num_partitions)

    async def put_job(self, job: Job, etag: str | None = None) -> str:
        """Insert or replace a job by its id, with an etag only the one that has it; returns its new etag."""
        return await self._run(partial(_put_job, job=job, etag=etag))

    async def get_job(self, job_id: str) -> Job | None:
        """The job, or None when there is none of that id."""
        found = await self.get_job_and_etag(job_id)
        return found[0] if found else None

    async def get_job_and_etag(self, job_id: str) -> tuple[Job, str] | None:
        """The job with the etag by which to replace it, or None when there is none of that id."""
        return await self._run(partial(_get_job, job_id=job_id))

    async def jobs(self, limit: int = 100) -> list[Job]:
        """The newest jobs first; limit is 1 to MAX_PAGE."""
        check_limit(limit)
        return await self._run(partial(_newest_jobs, limit=limit))

    async def delete_job(self, job_id: str) -> None:
        """Take away the job, its chunks and its outcomes in one transaction."""
        await self._run(partial(_delete_job, job_id=job_id, keys=self._partitions(job_id)))

    async def put_document(self, document: Document, etag: str | None = None) -> str:
        """Insert or replace by kind and id, with an etag only the one that has it; returns its new etag."""
        return await self._run(partial(sqlite_documents.put, document=document, etag=etag))

    async def get_document(self, kind: str, id: str) -> tuple[Document, str] | None:
        """The document and its etag, or None when there is none."""
        return await self._run(partial(sqlite_documents.get, kind=kind, id=id))

    async def documents(
        self, kind: str, group: str | None = None, open: bool | None = None, cursor: str | None = None, limit: int = 100
    ) -> DocumentPage:
        """A page of the documents of a kind, the greatest sort key first; limit is 1 to MAX_PAGE."""
        check_limit(limit)
        return await self._run(
            partial(sqlite_documents.page, kind=kind, group=group, open=open, cursor=cursor, limit=limit)
        )

    async def delete_document(self, kind: str, id: str) -> None:
        """Take it away; one that is not there stays so."""
        await self._run(partial(sqlite_documents.delete, kind=kind, id=id))

    async def put_chunk(self, chunk: Chunk, outcomes: Sequence[Outcome]) -> None:
        """Write a chunk's outcomes and its document in one transaction; again, it replaces them."""
        check_chunk(chunk, outcomes)
        key = partition_key(chunk.job_id, chunk.chunk, self.num_partitions)
        await self._run(partial(_put_chunk, key=key, chunk=chunk, outcomes=outcomes))

    async def chunks(self, job_id: str) -> AsyncIterator[Chunk]:
        """Every chunk document of a job, in chunk order; those written meanwhile may be among them."""
        last = -1
        while found := await self._run(partial(_chunks_after, job_id=job_id, last=last)):
            for chunk in found:
                yield chunk
            last = found[-1].chunk

    async def page(
        self, job_id: str, where: OutcomeFilter = EVERY, cursor: str | None = None, limit: int = 100
    ) -> Page:
        """A page of a job's outcomes in id order; the cursor is the last id, and limit is 1 to MAX_PAGE."""
        check_limit(limit)
        keys = self._partitions(job_id)
        return await self._run(partial(_page, keys=keys, where=where, cursor=cursor or "", limit=limit))

    async def forget_chunks(self, job_id: str, numbers: Collection[int]) -> None:
        """Take away these chunk documents; their outcomes stay."""
        await self._run(partial(_forget_chunks, job_id=job_id, numbers=numbers))

    async def put_label_events(self, events: Sequence[LabelEvent]) -> None:
        """Add events; one that is there already, by its id, stays one."""
        await self._run(partial(_put_label_events, events=events))

    async def label_events(self, uri: str | None = None, cursor: str | None = None, limit: int = 100) -> LabelPage:
        """A page of all events, or of one image's, oldest first; limit is 1 to MAX_PAGE."""
        check_limit(limit)
        return await self._run(partial(_label_page, uri=uri, cursor=cursor or "", limit=limit))

    async def close(self) -> None:
        """Release the connection; the store opens again when it is next used."""
        await asyncio.to_thread(self._close)

    def _partitions(self, job_id: str) -> list[str]:
        return [partition_key(job_id, number, self.num_partitions) for number in range(self.num_partitions)]

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.to_thread(self._work, work)

    def _work(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock, named_failures(self.path):
            if self._connection is None:
                self._connection = connect(self.path, self.num_partitions)
            return work(self._connection)

    def _close(self) -> None:
        with self._lock, named_failures(self.path):
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()


def _put_job(connection: sqlite3.Connection, job: Job, etag: str | None) -> str:
    with transaction(connection):
        _sweep(connection)
        if etag is not None:
            row = connection.execute("SELECT etag FROM jobs WHERE id = ?", (job.id,)).fetchone()
            if row is None or row[0] != etag:
                raise ConflictError(f"job {job.id} was changed meanwhile")
        values = (job.id, sort_key(job.created_at, job.id), job.model_dump_json())
        return str(connection.execute(_PUT_JOB, values).fetchone()[0])


def _get_job(connection: sqlite3.Connection, job_id: str) -> tuple[Job, str] | None:
    row = connection.execute("SELECT document, etag FROM jobs WHERE id = ?", (job_id,)).fetchone()
    return (Job.model_validate_json(row[0]), row[1]) if row else None


def _newest_jobs(connection: sqlite3.Connection, limit: int) -> list[Job]:
    rows = connection.execute("SELECT document FROM jobs ORDER BY sort_key DESC LIMIT ?", (limit,))
    return [Job.model_validate_json(document) for (document,) in rows]


def _delete_job(connection: sqlite3.Connection, job_id: str, keys: list[str]) -> None:
    with transaction(connection):
        connection.executemany("DELETE FROM outcomes WHERE pk = ?", [(key,) for key in keys])
        connection.execute("DELETE FROM chunks WHERE job_id = ?", (job_id,))
        connection.execute("DELETE FROM jobs WHERE id = ?", (job_id,))


def _forget_chunks(connection: sqlite3.Connection, job_id: str, numbers: Collection[int]) -> None:
    with transaction(connection):
        connection.executemany(
            "DELETE FROM chunks WHERE job_id = ? AND chunk = ?", [(job_id, number) for number in numbers]
        )


def _put_chunk(connection: sqlite3.Connection, key: str, chunk: Chunk, outcomes: Sequence[Outcome]) -> None:
    rows = [
        (key, row.id, row.status, row.label, row.decision, row.confidence, row.model_dump_json(), chunk.expires)
        for row in outcomes
    ]
    with transaction(connection):
        connection.executemany(_PUT_OUTCOME, rows)
        connection.execute(_PUT_CHUNK, (chunk.job_id, chunk.chunk, chunk.model_dump_json(), chunk.expires))


def _sweep(connection: sqlite3.Connection) -> None:
    """Delete what has outlived its time; until then nobody is shown it."""
    for table in ("outcomes", "chunks"):
        connection.execute(f"DELETE FROM {table} WHERE expires <= ?", (time.time(),))


def _chunks_after(connection: sqlite3.Connection, job_id: str, last: int) -> list[Chunk]:
    rows = connection.execute(
        f"SELECT document FROM chunks WHERE job_id = ? AND chunk > ? AND {_LIVES} ORDER BY chunk LIMIT ?",
        (job_id, last, time.time(), CHUNKS_AT_ONCE),
    )
    return [Chunk.model_validate_json(document) for (document,) in rows]


def _page(connection: sqlite3.Connection, keys: list[str], where: OutcomeFilter, cursor: str, limit: int) -> Page:
    conditions, values = _conditions(where)
    now = time.time()
    # Each partition offers its first rows, out of the index alone; documents are read of those that make the page.
    # One row more than the page tells whether another page follows.
    first = f"ORDER BY id LIMIT {limit + 1}"
    partition = (
        "SELECT * FROM (SELECT id, rowid AS row FROM outcomes INDEXED BY outcomes_filter "
        f"WHERE pk = ? AND id > ? AND {_LIVES}{conditions} {first})"
    )
    query = (
        f"SELECT found.id, document FROM ({' UNION ALL '.join([partition] * len(keys))} {first}) AS found "
        "JOIN outcomes ON outcomes.rowid = found.row ORDER BY found.id"
    )
    rows = connection.execute(query, [value for key in keys for value in (key, cursor, now, *values)]).fetchall()
    found = rows[:limit]
    return Page(
        outcomes=tuple(Outcome.model_validate_json(document) for _, document in found),
        cursor=found[-1][0] if len(rows) > limit else None,
    )


def _put_label_events(connection: sqlite3.Connection, events: Sequence[LabelEvent]) -> None:
    with transaction(connection):
        connection.executemany(
            _PUT_LABEL_EVENT, [(event.sort_key, event.uri, event.model_dump_json()) for event in events]
        )


def _label_page(connection: sqlite3.Connection, uri: str | None, cursor: str, limit: int) -> LabelPage:
    condition, values = ("uri = ? AND ", [uri]) if uri is not None else ("", [])
    query = f"SELECT sort_key, document FROM label_events WHERE {condition}sort_key > ? ORDER BY sort_key LIMIT ?"
    rows = connection.execute(query, [*values, cursor, limit + 1]).fetchall()
    found = rows[:limit]
    return LabelPage(
        events=tuple(LabelEvent.model_validate_json(document) for _, document in found),
        cursor=found[-1][0] if len(rows) > limit else None,
    )


def _conditions(where: OutcomeFilter) -> tuple[str, list[str | float]]:
    tests = {
        "status = ?": where.status,
        "label = ?": where.label,
        "decision = ?": where.decision,
        "confidence >= ?": where.min_confidence,
        "confidence <= ?": where.max_confidence,
    }
    wanted = {test: value for test, value in tests.items() if value is not None}
    return "".join(f" AND {test}" for test in wanted), list(wanted.values())
