"""The open side of the store in Cosmos DB: containers and a limiter on one event loop, and failures explained."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from azure.cosmos.aio import ContainerProxy

from glint.adapters.cosmos_client import OPEN_TIMEOUT_S, TOO_MANY, CosmosAddress, connect, explained
from glint.adapters.cosmos_schema import INDEXED
from glint.adapters.limiter import RequestUnitLimiter

T = TypeVar("T")

ATTEMPT_TIMEOUT_S = 15.0


class Connection:
    """A client and the containers of a database. Belongs to one event loop, and opens with the first use."""

    def __init__(self, address: CosmosAddress, write_ru: float | None) -> None:
        self.limiter = RequestUnitLimiter(write_ru or math.inf)
        self._address = address
        self._stack = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._containers: dict[str, ContainerProxy] = {}

    async def on(self, name: str, work: Callable[[ContainerProxy], Awaitable[T]]) -> T:
        """What `work` does with a container; raises what `explained` makes of its failures."""
        await self.open()
        with explained(self._address):
            async with asyncio.timeout(ATTEMPT_TIMEOUT_S):
                return await work(self._containers[name])

    async def open(self) -> None:
        """Connect, and see that the containers are there; again, it does nothing."""
        async with self._opening:
            if self._containers:
                return
            # What did not open whole is closed: the next try begins anew.
            async with AsyncExitStack() as opened:
                with explained(self._address):
                    async with asyncio.timeout(OPEN_TIMEOUT_S):
                        client = await opened.enter_async_context(connect(self._address, self._heed))
                        database = client.get_database_client(self._address.database)
                        containers = {name: database.get_container_client(name) for name in INDEXED}
                        await together(container.read() for container in containers.values())
                self._stack = opened.pop_all()
            self._containers = containers

    async def close(self) -> None:
        """Close the client."""
        await self._stack.aclose()

    def _heed(self, response: Any) -> None:
        if response.http_response.status_code == TOO_MANY:
            self.limiter.refused()


async def together(works: Iterable[Awaitable[T]]) -> list[T]:
    """All results; where some fail, the first failure, once none is under way any more."""
    ended = await asyncio.gather(*works, return_exceptions=True)
    results: list[T] = []
    for result in ended:
        if isinstance(result, BaseException):
            raise result
        results.append(result)
    return results
