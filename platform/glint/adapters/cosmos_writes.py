"""Writing to Azure Cosmos DB: tried again up to a deadline, and a chunk as one transactional batch within a budget."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from azure.cosmos.aio import ContainerProxy
from azure.cosmos.exceptions import (
    CosmosBatchOperationError,
    CosmosHttpResponseError,
    CosmosResourceNotFoundError,
)

from glint.adapters.cosmos_budget import WriteBudget
from glint.adapters.cosmos_client import TOO_LARGE, TOO_MANY
from glint.adapters.cosmos_connection import Connection, patiently
from glint.adapters.cosmos_schema import OUTCOMES
from glint.core.job import CHUNK_ROWS

T = TypeVar("T")

UNITS_PER_WRITE = 6.0
"""Request units of writing one outcome of 1 KB, until the service has said how many they are."""


class Writes:
    """Writes as long as it takes up to `deadline_s`, whether the account is there or not yet.

    Belongs to one event loop. `total_ru` are the RU/s of the database, None where it is to be asked.
    """

    def __init__(self, connection: Connection, deadline_s: float, total_ru: int | None) -> None:
        self._connection = connection
        self._deadline_s = deadline_s
        self._budget = WriteBudget(connection, total_ru)
        self._units_per_document = UNITS_PER_WRITE

    async def on(self, name: str, work: Callable[[ContainerProxy], Awaitable[T]]) -> T:
        """What `work` does with a container, in the end."""
        return await self._persist(lambda: self._connection.on(name, work))

    async def delete(self, name: str, id: str, pk: str) -> None:
        """Take a document away; one that is not there stays so."""

        async def delete(container: ContainerProxy) -> None:
            with suppress(CosmosResourceNotFoundError):
                await container.delete_item(id, pk)

        await self.on(name, delete)

    async def clear(self, name: str, pk: str) -> None:
        """Delete all of a partition, a batch at a time, within the same budget."""
        while await self._persist(partial(self._delete_some, name, pk)):
            pass

    async def put_chunk(self, pk: str, documents: list[dict[str, Any]]) -> None:
        """Upsert the documents of a chunk, its own last: where they must be cut, it counts nothing that is not there.

        Waits for the budget of request units.
        """
        await self._persist(partial(self._put_chunk, pk, documents))

    async def leave(self) -> None:
        """Give back what this writer may take of the budget."""
        await self._budget.leave()

    async def _persist(self, attempt: Callable[[], Awaitable[T]]) -> T:
        return await patiently(attempt, self._deadline_s)

    async def _put_chunk(self, pk: str, documents: list[dict[str, Any]]) -> None:
        await self._spend(len(documents))
        await self._connection.on(OUTCOMES, lambda container: self._upsert(container, pk, documents))

    async def _spend(self, num_documents: int) -> None:
        await self._connection.open()
        await self._budget.renew()
        await self._connection.limiter.spend(num_documents * self._units_per_document)

    async def _upsert(self, container: ContainerProxy, pk: str, documents: list[dict[str, Any]]) -> None:
        """In one batch; where the service will not have it as one, in halves."""
        operations = [("upsert", (document,)) for document in documents]
        try:
            # Where the account has priorities switched on, whoever reads or reviews is served before this.
            answers = await container.execute_item_batch(operations, pk, priority="Low")
        except (CosmosHttpResponseError, CosmosBatchOperationError) as error:
            if error.status_code == TOO_MANY:
                self._connection.limiter.refused()
            if error.status_code not in (400, TOO_LARGE) or len(documents) == 1:
                raise
            half = len(documents) // 2
            await self._upsert(container, pk, documents[:half])
            await self._upsert(container, pk, documents[half:])
            return
        units = float(answers.get_response_headers().get("x-ms-request-charge", 0)) / len(documents)
        self._units_per_document += 0.1 * (units - self._units_per_document)

    async def _delete_some(self, name: str, pk: str) -> bool:
        """Delete what one batch takes of a partition; whether there was anything."""
        ids = await self._connection.on(name, partial(_some_ids, pk))
        if not ids:
            return False
        await self._spend(len(ids))
        operations = [("delete", (id,)) for id in ids]
        await self._connection.on(name, lambda container: container.execute_item_batch(operations, pk, priority="Low"))
        return True


async def _some_ids(pk: str, container: ContainerProxy) -> list[str]:
    query = f"SELECT TOP {CHUNK_ROWS} c.id FROM c WHERE c.pk = @pk"
    parameters: list[dict[str, Any]] = [{"name": "@pk", "value": pk}]
    return [row["id"] async for row in container.query_items(query, parameters=parameters, partition_key=pk)]
