"""The result store in Azure Cosmos DB: a chunk is a transactional batch, written again until it stands."""

from __future__ import annotations

import asyncio
import hashlib
import heapq
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from azure.core.exceptions import AzureError
from azure.cosmos.aio import ContainerProxy
from azure.cosmos.exceptions import (
    CosmosBatchOperationError,
    CosmosHttpResponseError,
    CosmosResourceNotFoundError,
)

from glint.adapters.cosmos_client import (
    MAX_CONNECTIONS,
    TOO_LARGE,
    TOO_MANY,
    CosmosAddress,
)
from glint.adapters.cosmos_connection import Connection, patiently, together
from glint.adapters.cosmos_documents import document_of, put_item, record_of
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
from glint.adapters.dead_letters import keep
from glint.adapters.limiter import RequestUnitLimiter
from glint.core.errors import GlintError, StoreError
from glint.core.job import CHUNK_ROWS, Chunk, Job
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

CHUNKS_AT_ONCE = 200
UNITS_PER_WRITE = 6.0
"""Request units of writing one outcome of 1 KB, until the service has said how many they are."""


@dataclass(frozen=True)
class WriteLimits:
    """How hard a writer tries, and how much it takes: `write_ru` RU/s at most, `deadline_s` for one chunk."""

    write_ru: float | None = None
    deadline_s: float = 120.0


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
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connection: Connection | None = None

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

        async def get(books: ContainerProxy) -> tuple[Job, str] | None:
            try:
                document = await books.read_item(job_key(job_id), JOBS_PK)
            except CosmosResourceNotFoundError:
                return None
            return Job.model_validate(document["job"]), str(document["_etag"])

        return await self._read(BOOKS, get)

    async def jobs(self, limit: int = 100) -> list[Job]:
        """The newest jobs first; limit is 1 to MAX_PAGE."""
        check_limit(limit)
        query = f"SELECT TOP {limit} * FROM c WHERE c.pk = @pk ORDER BY c.sort_key DESC"
        return [Job.model_validate(document["job"]) for document in await self._query(BOOKS, JOBS_PK, query)]

    async def delete_job(self, job_id: str) -> None:
        """Take away the outcomes and chunks, a batch at a time, then the job."""
        for pk in self._partitions(job_id):
            while await self._persist(lambda pk=pk: self._on(OUTCOMES, partial(self._delete_some, pk))):  # type: ignore[misc]
                pass
        await self._delete(BOOKS, job_key(job_id), JOBS_PK)

    async def put_document(self, document: Document, etag: str | None = None) -> str:
        """Insert or replace by kind and id, with an etag only the one that has it; returns its new etag."""
        return await self._put(record_of(document), etag, f"{document.kind} {document.id}")

    async def get_document(self, kind: str, id: str) -> tuple[Document, str] | None:
        """The document and its etag, or None when there is none."""

        async def get(books: ContainerProxy) -> tuple[Document, str] | None:
            try:
                record = await books.read_item(job_key(id), document_pk(kind))
            except CosmosResourceNotFoundError:
                return None
            return document_of(record), str(record["_etag"])

        return await self._read(BOOKS, get)

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
        records = await self._query(BOOKS, document_pk(kind), query, values)
        found = tuple(document_of(record) for record in records[:limit])
        return DocumentPage(found, found[-1].sort_key if len(records) > limit else None)

    async def delete_document(self, kind: str, id: str) -> None:
        """Take it away; one that is not there stays so."""
        await self._delete(BOOKS, job_key(id), document_pk(kind))

    async def put_chunk(self, chunk: Chunk, outcomes: Sequence[Outcome]) -> None:
        """Write a chunk's outcomes and its document in one transaction; again, it replaces them."""
        check_chunk(chunk, outcomes)
        pk = partition_key(chunk.job_id, chunk.chunk, self.num_partitions)
        ttl = {"ttl": chunk.ttl_s} if chunk.ttl_s else {}
        documents = [{"pk": pk, "kind": "outcome", **ttl, **outcome_document(row)} for row in outcomes]
        # The chunk's document comes last: where the batch must be cut, nothing counts before all of it stands.
        documents.append(
            {"id": f"chunk-{chunk.chunk}", "pk": pk, "kind": "chunk", **ttl, **chunk.model_dump(mode="json")}
        )
        try:
            await self._persist(partial(self._write_chunk, pk, documents))
        except (GlintError, AzureError) as error:
            file = keep(self.dead_letters, chunk, outcomes)
            reason = str(error).partition("\n")[0]
            raise StoreError(f"{reason}; chunk {chunk.chunk} of job {chunk.job_id} is kept in {file}") from None

    async def chunks(self, job_id: str) -> AsyncIterator[Chunk]:
        """Every chunk document of a job, in chunk order; those written meanwhile may be among them."""
        streams = [self._chunks_of(pk) for pk in self._partitions(job_id)]
        heads = [(await anext(stream, None), number) for number, stream in enumerate(streams)]
        heap = [(head.chunk, number, head) for head, number in heads if head]
        heapq.heapify(heap)
        while heap:
            _, number, chunk = heap[0]
            yield chunk
            following = await anext(streams[number], None)
            if following is None:
                heapq.heappop(heap)
            else:
                heapq.heapreplace(heap, (following.chunk, number, following))

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
        documents = await self._merged(
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
                self._delete(OUTCOMES, f"chunk-{number}", partition_key(job_id, number, self.num_partitions))
                for number in wanted[first : first + MAX_CONNECTIONS]
            )

    async def put_label_events(self, events: Sequence[LabelEvent]) -> None:
        """Add events; one that is there already, by its id, stays one."""

        def put(event: LabelEvent) -> Awaitable[None]:
            document = {"pk": self._label_pk(event.uri), "sort_key": event.sort_key, **event.model_dump(mode="json")}

            async def upsert(books: ContainerProxy) -> None:
                await books.upsert_item(document)

            return self._persist(lambda: self._on(BOOKS, upsert))

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
        documents = await self._merged(BOOKS, keys, query, {"@cursor": cursor or "", **values}, "sort_key")
        found = documents[:limit]
        return LabelPage(
            events=tuple(LabelEvent.model_validate(fields_of(document, LabelEvent)) for document in found),
            cursor=found[-1]["sort_key"] if len(documents) > limit else None,
        )

    async def close(self) -> None:
        """Release the connection; the store opens again when it is next used."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    @property
    def limiter(self) -> RequestUnitLimiter:
        """The limiter of this event loop's writes."""
        return self._connected().limiter

    async def _on(self, name: str, work: Callable[[ContainerProxy], Awaitable[T]]) -> T:
        return await self._connected().on(name, work)

    def _connected(self) -> Connection:
        """The connection of this event loop."""
        if self._connection is None or self._loop is not asyncio.get_running_loop():
            self._loop = asyncio.get_running_loop()
            self._connection = Connection(self.address, self.limits.write_ru)
            self._units_per_document = UNITS_PER_WRITE
        return self._connection

    # Writing

    async def _persist(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Write, as long as it takes up to the deadline, whether the account is there or not yet."""
        return await patiently(attempt, self.limits.deadline_s)

    async def _put(self, document: dict[str, Any], etag: str | None, what: str) -> str:
        return await self._persist(lambda: self._on(BOOKS, lambda books: put_item(books, document, etag, what)))

    async def _delete(self, container: str, id: str, pk: str) -> None:
        async def delete(found: ContainerProxy) -> None:
            with suppress(CosmosResourceNotFoundError):
                await found.delete_item(id, pk)

        await self._persist(lambda: self._on(container, delete))

    async def _delete_some(self, pk: str, container: ContainerProxy) -> bool:
        """Delete what one batch takes of a partition; whether there was anything."""
        query = f"SELECT TOP {CHUNK_ROWS} c.id FROM c WHERE c.pk = @pk"
        parameters: list[dict[str, Any]] = [{"name": "@pk", "value": pk}]
        ids = [row["id"] async for row in container.query_items(query, parameters=parameters, partition_key=pk)]
        if ids:
            await container.execute_item_batch([("delete", (id,)) for id in ids], pk)
        return bool(ids)

    async def _write_chunk(self, pk: str, documents: list[dict[str, Any]]) -> None:
        connection = self._connected()
        await connection.open()
        await connection.limiter.spend(len(documents) * self._units_per_document)
        await connection.on(OUTCOMES, lambda container: self._write(container, pk, documents))

    async def _write(self, container: ContainerProxy, pk: str, documents: list[dict[str, Any]]) -> None:
        """Upsert in one batch; where the service will not have it as one, in halves, the last document last."""
        try:
            answers = await container.execute_item_batch([("upsert", (document,)) for document in documents], pk)
        except (CosmosHttpResponseError, CosmosBatchOperationError) as error:
            if error.status_code == TOO_MANY:
                self.limiter.refused()
            if error.status_code not in (400, TOO_LARGE) or len(documents) == 1:
                raise
            half = len(documents) // 2
            await self._write(container, pk, documents[:half])
            await self._write(container, pk, documents[half:])
            return
        units = float(answers.get_response_headers().get("x-ms-request-charge", 0)) / len(documents)
        self._units_per_document += 0.1 * (units - self._units_per_document)

    # Reading

    async def _query(
        self, name: str, pk: str, query: str, values: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        parameters = [{"name": key, "value": value} for key, value in {"@pk": pk, **(values or {})}.items()]

        async def read(container: ContainerProxy) -> list[dict[str, Any]]:
            return [row async for row in container.query_items(query, parameters=parameters, partition_key=pk)]

        return await self._read(name, read)

    async def _read(self, name: str, work: Callable[[ContainerProxy], Awaitable[T]]) -> T:
        """Read as patiently as a write, once the account has answered at all."""
        connection = self._connected()
        return await patiently(lambda: connection.on(name, work), self.limits.deadline_s, lambda: connection.is_open)

    async def _merged(self, name: str, keys: list[str], query: str, values: dict[str, Any], order: str) -> list[Any]:
        """Each partition offers its first rows; all of them in the order of a field."""
        found = await together(self._query(name, pk, query, values) for pk in keys)
        return list(heapq.merge(*found, key=lambda document: document[order]))

    async def _chunks_of(self, pk: str) -> AsyncIterator[Chunk]:
        query = (
            f"SELECT TOP {CHUNKS_AT_ONCE} * FROM c WHERE c.pk = @pk AND c.kind = 'chunk' AND c.chunk > @last "
            "ORDER BY c.chunk"
        )
        last = -1
        while True:
            documents = await self._query(OUTCOMES, pk, query, {"@last": last})
            for document in documents:
                yield Chunk.model_validate(fields_of(document, Chunk))
                last = document["chunk"]
            if len(documents) < CHUNKS_AT_ONCE:
                return

    def _partitions(self, job_id: str) -> list[str]:
        return [partition_key(job_id, number, self.num_partitions) for number in range(self.num_partitions)]

    def _label_pk(self, uri: str) -> str:
        number = int.from_bytes(hashlib.sha256(uri.encode()).digest()[:4]) % self.num_partitions
        return f"labels|{number}"
