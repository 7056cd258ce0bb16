"""What a writer may take of a database's request units: all writers together WRITERS_SHARE, each of them as much.

Writers tell of themselves in the books while they write, and count each other by the service's clock. So a share grows
when another job ends, in whatever way, and no number of jobs or nodes together takes what is meant for readers.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from contextlib import suppress
from typing import Any

from azure.cosmos.aio import ContainerProxy
from azure.cosmos.exceptions import CosmosHttpResponseError, CosmosResourceNotFoundError

from glint.adapters.cosmos_client import NOT_FOUND, UnreachableError, status_of
from glint.adapters.cosmos_connection import Connection
from glint.adapters.cosmos_schema import BOOKS
from glint.core.errors import GlintError

WRITERS_SHARE = 0.8
"""Of the database's request units; the rest stays free for those who read while jobs write."""
DEFAULT_RU = 4000
"""RU/s of a database that does not say how many it has: the smallest autoscale maximum that is common."""
WRITERS_PK = "writers"
RENEW_S, LIFE_S = 10.0, 30
LEAVE_S = 2.0
FORBIDDEN = 403


async def database_ru(connection: Connection) -> int | None:
    """RU/s that the containers of the database share, at most where they scale by themselves.

    None where there is no such figure (serverless, or containers with a throughput of their own), or this identity may
    not read it: none of Entra ID may.
    """
    try:
        found: Any = await connection.database.get_throughput()
    except AttributeError:  # the SDK's own failure over a database without a figure
        return None
    except CosmosHttpResponseError as error:
        if status_of(error) in (NOT_FOUND, FORBIDDEN):
            return None
        raise
    return int(found.auto_scale_max_throughput or found.offer_throughput)


class WriteBudget:
    """One writer's share of `total_ru` RU/s (None: as many as the database says), which bounds a limiter.

    Belongs to one event loop, as its connection does.
    """

    def __init__(self, connection: Connection, total_ru: int | None) -> None:
        self._connection = connection
        self._total_ru = total_ru
        self._id = uuid.uuid4().hex
        self._due = 0.0
        self._turn = asyncio.Lock()
        connection.limiter.bound((total_ru or DEFAULT_RU) * WRITERS_SHARE)

    async def renew(self) -> None:
        """Before each write: tell now and then that this writer is there, and take what is its share then."""
        async with self._turn:  # no other chunk is written by a share that is not known yet
            now = time.monotonic()
            if now < self._due:
                return
            self._due = now + RENEW_S
            with suppress(UnreachableError):  # the share stays what it was until the next turn
                if self._total_ru is None:
                    self._total_ru = await self._connection.run(lambda: database_ru(self._connection)) or DEFAULT_RU
                num_writers = await self._connection.on(BOOKS, self._count)
                self._connection.limiter.bound(self._total_ru * WRITERS_SHARE / num_writers)

    async def leave(self) -> None:
        """Give the share back at once, where that takes no time; the service forgets this writer soon in any case."""
        if self._due:
            with suppress(GlintError, TimeoutError, CosmosResourceNotFoundError):
                async with asyncio.timeout(LEAVE_S):
                    await self._connection.on(BOOKS, lambda books: books.delete_item(self._id, WRITERS_PK))

    async def _count(self, books: ContainerProxy) -> int:
        """How many writers there are, this one too. The time is the service's, for clocks of machines differ."""
        document = {"id": self._id, "pk": WRITERS_PK, "ttl": LIFE_S}
        mine = await books.upsert_item(document, no_response=False)
        query = "SELECT VALUE COUNT(1) FROM c WHERE c.pk = @pk AND c._ts > @since"
        values = {"@pk": WRITERS_PK, "@since": mine["_ts"] - LIFE_S}
        parameters: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in values.items()]
        counts: list[Any] = [
            count async for count in books.query_items(query, parameters=parameters, partition_key=WRITERS_PK)
        ]
        return max(1, int(sum(counts)))
