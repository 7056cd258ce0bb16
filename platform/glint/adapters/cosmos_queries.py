"""Reading from Azure Cosmos DB: a query of one partition, of several merged into one order, and a job's chunks."""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from azure.cosmos.aio import ContainerProxy
from azure.cosmos.exceptions import CosmosResourceNotFoundError

from glint.adapters.cosmos_connection import Connection, patiently, together
from glint.adapters.cosmos_schema import OUTCOMES, fields_of
from glint.core.job import Chunk

T = TypeVar("T")

CHUNKS_AT_ONCE = 200

Record = dict[str, Any]


class Queries:
    """Reads as patiently as a write, once the account has answered at all. Belongs to one event loop."""

    def __init__(self, connection: Connection, deadline_s: float) -> None:
        self._connection = connection
        self._deadline_s = deadline_s

    async def get(self, name: str, id: str, pk: str) -> Record | None:
        """One document, or None when there is none of that id."""

        async def read(container: ContainerProxy) -> Record | None:
            try:
                return dict(await container.read_item(id, pk))
            except CosmosResourceNotFoundError:
                return None

        return await self._read(name, read)

    async def find(self, name: str, pk: str, query: str, values: Mapping[str, Any] | None = None) -> list[Record]:
        """What a query finds in one partition, `@pk` in its text."""
        parameters = [{"name": key, "value": value} for key, value in {"@pk": pk, **(values or {})}.items()]

        async def read(container: ContainerProxy) -> list[Record]:
            return [row async for row in container.query_items(query, parameters=parameters, partition_key=pk)]

        return await self._read(name, read)

    async def merged(
        self, name: str, keys: Sequence[str], query: str, values: Mapping[str, Any], order: str
    ) -> list[Record]:
        """Each partition offers its first rows; all of them in the order of a field."""
        found = await together(self.find(name, pk, query, values) for pk in keys)
        return list(heapq.merge(*found, key=lambda document: document[order]))

    async def chunks(self, keys: Sequence[str]) -> AsyncIterator[Chunk]:
        """The chunk documents of these partitions in chunk order."""
        streams = [self._chunks_of(pk) for pk in keys]
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

    async def _chunks_of(self, pk: str) -> AsyncIterator[Chunk]:
        query = (
            f"SELECT TOP {CHUNKS_AT_ONCE} * FROM c WHERE c.pk = @pk AND c.kind = 'chunk' AND c.chunk > @last "
            "ORDER BY c.chunk"
        )
        last = -1
        while True:
            documents = await self.find(OUTCOMES, pk, query, {"@last": last})
            for document in documents:
                yield Chunk.model_validate(fields_of(document, Chunk))
                last = document["chunk"]
            if len(documents) < CHUNKS_AT_ONCE:
                return

    async def patiently(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """What any other way to read gives."""
        return await patiently(attempt, self._deadline_s, lambda: self._connection.is_open)

    async def _read(self, name: str, work: Callable[[ContainerProxy], Awaitable[T]]) -> T:
        return await self.patiently(lambda: self._connection.on(name, work))
