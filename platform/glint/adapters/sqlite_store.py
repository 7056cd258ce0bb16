"""The embedded result store: one SQLite file on one machine, written by any number of processes at once."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC
from functools import partial
from pathlib import Path
from typing import TypeVar

from glint.adapters.sqlite_file import connect, named_failures, transaction
from glint.core.job import Chunk, Job
from glint.core.outcome import Outcome
from glint.core.stores import EVERY, OutcomeFilter, Page, check_chunk, check_limit, partition_key

T = TypeVar("T")

CHUNKS_AT_ONCE = 1000

_NEW_ETAG = "lower(hex(randomblob(8)))"
_PUT_OUTCOME = f"""
INSERT INTO outcomes VALUES (?, ?, ?, ?, ?, ?, ?, {_NEW_ETAG}) ON CONFLICT (pk, id) DO UPDATE SET
    status = excluded.status, label = excluded.label, decision = excluded.decision,
    confidence = excluded.confidence, document = excluded.document, etag = excluded.etag
"""
_PUT_CHUNK = f"INSERT OR REPLACE INTO chunks VALUES (?, ?, ?, {_NEW_ETAG})"
_PUT_JOB = f"INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, {_NEW_ETAG})"


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

    async def put_job(self, job: Job) -> None:
        """Insert or replace a job by its id."""
        await self._run(partial(_put_job, job=job))

    async def get_job(self, job_id: str) -> Job | None:
        """The job, or None when there is none of that id."""
        return await self._run(partial(_get_job, job_id=job_id))

    async def jobs(self, limit: int = 100) -> list[Job]:
        """The newest jobs first; limit is 1 to MAX_PAGE."""
        check_limit(limit)
        return await self._run(partial(_newest_jobs, limit=limit))

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
        keys = [partition_key(job_id, number, self.num_partitions) for number in range(self.num_partitions)]
        return await self._run(partial(_page, keys=keys, where=where, cursor=cursor or "", limit=limit))

    async def close(self) -> None:
        """Release the connection; the store opens again when it is next used."""
        await asyncio.to_thread(self._close)

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


def _put_job(connection: sqlite3.Connection, job: Job) -> None:
    created = job.created_at.astimezone(UTC).isoformat(timespec="microseconds")
    connection.execute(_PUT_JOB, (job.id, created, job.model_dump_json()))


def _get_job(connection: sqlite3.Connection, job_id: str) -> Job | None:
    row = connection.execute("SELECT document FROM jobs WHERE id = ?", (job_id,)).fetchone()
    return Job.model_validate_json(row[0]) if row else None


def _newest_jobs(connection: sqlite3.Connection, limit: int) -> list[Job]:
    rows = connection.execute("SELECT document FROM jobs ORDER BY created_at DESC, id DESC LIMIT ?", (limit,))
    return [Job.model_validate_json(document) for (document,) in rows]


def _put_chunk(connection: sqlite3.Connection, key: str, chunk: Chunk, outcomes: Sequence[Outcome]) -> None:
    rows = [
        (key, row.id, row.status, row.label, row.decision, row.confidence, row.model_dump_json()) for row in outcomes
    ]
    with transaction(connection):
        connection.executemany(_PUT_OUTCOME, rows)
        connection.execute(_PUT_CHUNK, (chunk.job_id, chunk.chunk, chunk.model_dump_json()))


def _chunks_after(connection: sqlite3.Connection, job_id: str, last: int) -> list[Chunk]:
    rows = connection.execute(
        "SELECT document FROM chunks WHERE job_id = ? AND chunk > ? ORDER BY chunk LIMIT ?",
        (job_id, last, CHUNKS_AT_ONCE),
    )
    return [Chunk.model_validate_json(document) for (document,) in rows]


def _page(connection: sqlite3.Connection, keys: list[str], where: OutcomeFilter, cursor: str, limit: int) -> Page:
    conditions, values = _conditions(where)
    # Each partition offers its first rows, out of the index alone; documents are read of those that make the page.
    # One row more than the page tells whether another page follows.
    first = f"ORDER BY id LIMIT {limit + 1}"
    partition = (
        "SELECT * FROM (SELECT id, rowid AS row FROM outcomes INDEXED BY outcomes_filter "
        f"WHERE pk = ? AND id > ?{conditions} {first})"
    )
    query = (
        f"SELECT found.id, document FROM ({' UNION ALL '.join([partition] * len(keys))} {first}) AS found "
        "JOIN outcomes ON outcomes.rowid = found.row ORDER BY found.id"
    )
    rows = connection.execute(query, [value for key in keys for value in (key, cursor, *values)]).fetchall()
    found = rows[:limit]
    return Page(
        outcomes=tuple(Outcome.model_validate_json(document) for _, document in found),
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
