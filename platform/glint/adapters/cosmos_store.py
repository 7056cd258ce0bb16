"""The result store in Azure Cosmos DB: a chunk is a transactional batch, written again until it stands."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from azure.core.exceptions import AzureError
from azure.cosmos.aio import ContainerProxy

from glint.adapters.cosmos_budget import database_ru
from glint.adapters.cosmos_client import MAX_CONNECTIONS, CosmosAddress
from glint.adapters.cosmos_connection import Connection, together
from glint.adapters.cosmos_documents import document_of, put_item, record_of
from glint.adapters.cosmos_queries import Queries
from glint.adapters.cosmos_schema import (
    BOOKS,
    JOBS_PK,
    OUTCOMES,
    conditions_of,
    document_pk,
    fields_of,
    job_key,
    outcome_document,
)
from glint.adapters.cosmos_writes import Writes
from glint.adapters.dead_letters import keep
from glint.adapters.limiter import RequestUnitLimiter
from glint.core.errors import GlintError, StoreError
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


@dataclass(frozen=True)
class WriteLimits:
    """How hard a writer tries, `deadline_s` for one chunk, and the RU/s of the database of which it takes its share.

    `total_ru` None: the database is asked.
    """

    total_ru: int | None = None
    deadline_s: float = 120.0


class _Opened:
    """What belongs to one event loop."""

    def __init__(self, address: CosmosAddress, limits: WriteLimits) -> None:
        self.loop = asyncio.get_running_loop()
        self.connection = Connection(address)
        self.queries = Queries(self.connection, limits.deadline_s)
        self.writes = Writes(self.connection, limits.deadline_s, limits.total_ru)


class CosmosStore:
    """A result store in one database. Opens nothing before its first use; pickles without connection and secrets.

    A chunk that cannot be written within the deadline is kept in a file below `dead_letters` and raises StoreError.
    All methods raise StoreError naming the setting where the account refuses or does not answer.
    """

    def __init__(
        self,
        address: CosmosAddress,
        dead_letters: Path,
        limits: WriteLimits = WriteLimits(),
        num_partitions: int = 4,
    ) -> None:
        self.address = address
        self.dead_letters = dead_letters
        self.limits = limits
        self.num_partitions = num_partitions
        self._opened: _Opened | None = None

    def __reduce__(self) -> tuple[type[CosmosStore], tuple[CosmosAddress, Path, WriteLimits, int]]:
        return CosmosStore, (self.address, self.dead_letters, self.limits, self.num_partitions)

    async def put_job(self, job: Job, etag: str | None = None) -> str:
        """Insert or replace a job by its id, with an etag only the one that has it; returns its new etag."""
        document: dict[str, Any] = {
            "id": job_key(job.id),
            "pk": JOBS_PK,
            "sort_key": sort_key(job.created_at, job.id),
            "job": job.model_dump(mode="json"),
        }
        return await self._put(document, etag, f"job {job.id}")

    async def get_job(self, job_id: str) -> Job | None:
        """The job, or None when there is none of that id."""
        found = await self.get_job_and_etag(job_id)
        return found[0] if found else None

    async def get_job_and_etag(self, job_id: str) -> tuple[Job, str] | None:
        """The job with the etag by which to replace it, or None when there is none of that id."""
        document = await self._queries.get(BOOKS, job_key(job_id), JOBS_PK)
        return (Job.model_validate(document["job"]), str(document["_etag"])) if document else None

    async def jobs(self, limit: int = 100) -> list[Job]:
        """The newest jobs first; limit is 1 to MAX_PAGE."""
        check_limit(limit)
        query = f"SELECT TOP {limit} * FROM c WHERE c.pk = @pk ORDER BY c.sort_key DESC"
        return [Job.model_validate(document["job"]) for document in await self._queries.find(BOOKS, JOBS_PK, query)]

    async def delete_job(self, job_id: str) -> None:
        """Take away the outcomes and chunks, a batch at a time, then the job."""
        for pk in self._partitions(job_id):
            await self._writes.clear(OUTCOMES, pk)
        await self._writes.delete(BOOKS, job_key(job_id), JOBS_PK)

    async def put_document(self, document: Document, etag: str | None = None) -> str:
        """Insert or replace by kind and id, with an etag only the one that has it; returns its new etag."""
        return await self._put(record_of(document), etag, f"{document.kind} {document.id}")

    async def get_document(self, kind: str, id: str) -> tuple[Document, str] | None:
        """The document and its etag, or None when there is none."""
        record = await self._queries.get(BOOKS, job_key(id), document_pk(kind))
        return (document_of(record), str(record["_etag"])) if record else None

    async def documents(
        self, kind: str, group: str | None = None, open: bool | None = None, cursor: str | None = None, limit: int = 100
    ) -> DocumentPage:
        """A page of the documents of a kind, the greatest sort key first; limit is 1 to MAX_PAGE."""
        check_limit(limit)
        tests = {"c.sort_key < @cursor": cursor, "c['group'] = @group": group, "c['open'] = @open": open}
        wanted = {test: value for test, value in tests.items() if value is not None}
        conditions = "".join(f" AND {test}" for test in wanted)
        query = f"SELECT TOP {limit + 1} * FROM c WHERE c.pk = @pk{conditions} ORDER BY c.sort_key DESC"
        values = {test.rpartition(" ")[2]: value for test, value in wanted.items()}
        records = await self._queries.find(BOOKS, document_pk(kind), query, values)
        found = tuple(document_of(record) for record in records[:limit])
        return DocumentPage(found, found[-1].sort_key if len(records) > limit else None)

    async def delete_document(self, kind: str, id: str) -> None:
        """Take it away; one that is not there stays so."""
        await self._writes.delete(BOOKS, job_key(id), document_pk(kind))

    async def put_chunk(self, chunk: Chunk, outcomes: Sequence[Outcome]) -> None:
        """Write a chunk's outcomes and its document in one transaction; again, it replaces them."""
        check_chunk(chunk, outcomes)
        pk = partition_key(chunk.job_id, chunk.chunk, self.num_partitions)
        ttl = {"ttl": chunk.ttl_s} if chunk.ttl_s else {}
        documents = [{"pk": pk, "kind": "outcome", **ttl, **outcome_document(row)} for row in outcomes]
        documents.append(
            {"id": f"chunk-{chunk.chunk}", "pk": pk, "kind": "chunk", **ttl, **chunk.model_dump(mode="json")}
        )
        try:
            await self._writes.put_chunk(pk, documents)
        except (GlintError, AzureError) as error:
            file = keep(self.dead_letters, chunk, outcomes)
            reason = str(error).partition("\n")[0]
            raise StoreError(f"{reason}; chunk {chunk.chunk} of job {chunk.job_id} is kept in {file}") from None

    async def chunks(self, job_id: str) -> AsyncIterator[Chunk]:
        """Every chunk document of a job, in chunk order; those written meanwhile may be among them."""
        async for chunk in self._queries.chunks(self._partitions(job_id)):
            yield chunk

    async def page(
        self, job_id: str, where: OutcomeFilter = EVERY, cursor: str | None = None, limit: int = 100
    ) -> Page:
        """A page of a job's outcomes in id order; the cursor is the last id, and limit is 1 to MAX_PAGE."""
        check_limit(limit)
        conditions, values = conditions_of(where)
        query = (
            f"SELECT TOP {limit + 1} * FROM c WHERE c.pk = @pk AND c.kind = 'outcome' AND c.id > @cursor{conditions} "
            "ORDER BY c.id"
        )
        documents = await self._queries.merged(
            OUTCOMES, self._partitions(job_id), query, {"@cursor": cursor or "", **values}, "id"
        )
        found = documents[:limit]
        return Page(
            outcomes=tuple(Outcome.model_validate(fields_of(document, Outcome)) for document in found),
            cursor=found[-1]["id"] if len(documents) > limit else None,
        )

    async def forget_chunks(self, job_id: str, numbers: Collection[int]) -> None:
        """Take away these chunk documents; their outcomes stay."""
        wanted = sorted(numbers)
        for first in range(0, len(wanted), MAX_CONNECTIONS):
            await together(
                self._writes.delete(OUTCOMES, f"chunk-{number}", partition_key(job_id, number, self.num_partitions))
                for number in wanted[first : first + MAX_CONNECTIONS]
            )

    async def put_label_events(self, events: Sequence[LabelEvent]) -> None:
        """Add events; one that is there already, by its id, stays one."""

        def put(event: LabelEvent) -> Awaitable[None]:
            document = {"pk": self._label_pk(event.uri), "sort_key": event.sort_key, **event.model_dump(mode="json")}

            async def upsert(books: ContainerProxy) -> None:
                await books.upsert_item(document)

            return self._writes.on(BOOKS, upsert)

        for first in range(0, len(events), MAX_CONNECTIONS):
            await together(put(event) for event in events[first : first + MAX_CONNECTIONS])

    async def label_events(self, uri: str | None = None, cursor: str | None = None, limit: int = 100) -> LabelPage:
        """A page of all events, or of one image's, oldest first; limit is 1 to MAX_PAGE."""
        check_limit(limit)
        keys = [f"labels|{number}" for number in range(self.num_partitions)] if uri is None else [self._label_pk(uri)]
        condition, values = ("", {}) if uri is None else (" AND c.uri = @uri", {"@uri": uri})
        query = (
            f"SELECT TOP {limit + 1} * FROM c WHERE c.pk = @pk AND c.sort_key > @cursor{condition} ORDER BY c.sort_key"
        )
        documents = await self._queries.merged(BOOKS, keys, query, {"@cursor": cursor or "", **values}, "sort_key")
        found = documents[:limit]
        return LabelPage(
            events=tuple(LabelEvent.model_validate(fields_of(document, LabelEvent)) for document in found),
            cursor=found[-1]["sort_key"] if len(documents) > limit else None,
        )

    async def database_ru(self) -> int | None:
        """RU/s that the database says it has, None where it does not; writers then take it for DEFAULT_RU."""
        connection = self._on_this_loop().connection
        return await self._queries.patiently(lambda: connection.run(lambda: database_ru(connection)))

    async def close(self) -> None:
        """Release the connection; the store opens again when it is next used."""
        opened, self._opened = self._opened, None
        if opened is not None:
            if opened.loop is asyncio.get_running_loop():
                await opened.writes.leave()
            await opened.connection.close()

    @property
    def limiter(self) -> RequestUnitLimiter:
        """The limiter of this event loop's writes."""
        return self._on_this_loop().connection.limiter

    @property
    def _queries(self) -> Queries:
        return self._on_this_loop().queries

    @property
    def _writes(self) -> Writes:
        return self._on_this_loop().writes

    def _on_this_loop(self) -> _Opened:
        if self._opened is None or self._opened.loop is not asyncio.get_running_loop():
            self._opened = _Opened(self.address, self.limits)
        return self._opened

    async def _put(self, document: dict[str, Any], etag: str | None, what: str) -> str:
        return await self._writes.on(BOOKS, lambda books: put_item(books, document, etag, what))

    def _partitions(self, job_id: str) -> list[str]:
        return [partition_key(job_id, number, self.num_partitions) for number in range(self.num_partitions)]

    def _label_pk(self, uri: str) -> str:
        number = int.from_bytes(hashlib.sha256(uri.encode()).digest()[:4]) % self.num_partitions
        return f"labels|{number}"
