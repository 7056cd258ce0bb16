"""The open side of the store in Cosmos DB: containers and a limiter on one event loop, and failures explained."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from azure.cosmos.aio import ContainerProxy, DatabaseProxy

from glint.adapters.cosmos_client import (
    OPEN_TIMEOUT_S,
    TOO_MANY,
    CosmosAddress,
    UnreachableError,
    connect,
    explained,
)
from glint.adapters.cosmos_schema import INDEXED
from glint.adapters.limiter import RequestUnitLimiter

T = TypeVar("T")

ATTEMPT_TIMEOUT_S = 15.0
BACKOFF_S = (0.1, 5.0)
FIRST_PATIENCE_S = 3.0
"""For so long a read is tried again that finds nobody at the account: a wrong setting is said soon."""


class Connection:
    """A client and the containers of a database. Belongs to one event loop, and opens with the first use."""

    database: DatabaseProxy
    """Once it is open."""

    def __init__(self, address: CosmosAddress) -> None:
        self.limiter = RequestUnitLimiter()
        self.containers: dict[str, ContainerProxy] = {}
        self._address = address
        self._stack = AsyncExitStack()
        self._opening = asyncio.Lock()

    async def on(self, name: str, work: Callable[[ContainerProxy], Awaitable[T]]) -> T:
        """What `work` does with a container; raises what `explained` makes of its failures."""
        return await self.run(lambda: work(self.containers[name]))

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """The same with whatever of the open connection."""
        await self.open()
        with explained(self._address):
            async with asyncio.timeout(ATTEMPT_TIMEOUT_S):
                return await work()

    async def open(self) -> None:
        """Connect, and see that the containers are there; again, it does nothing."""
        async with self._opening:
            if self.containers:
                return
            # What did not open whole is closed: the next try begins anew.
            async with AsyncExitStack() as opened:
                with explained(self._address):
                    async with asyncio.timeout(OPEN_TIMEOUT_S):
                        client = await opened.enter_async_context(connect(self._address, self._heed))
                        self.database = client.get_database_client(self._address.database)
                        containers = {name: self.database.get_container_client(name) for name in INDEXED}
                        await together(container.read() for container in containers.values())
                self._stack = opened.pop_all()
            self.containers = containers

    @property
    def is_open(self) -> bool:
        """Whether the account has answered."""
        return bool(self.containers)

    async def close(self) -> None:
        """Close the client."""
        await self._stack.aclose()

    def _heed(self, response: Any) -> None:
        if response.http_response.status_code == TOO_MANY:
            self.limiter.refused()


async def patiently(
    attempt: Callable[[], Awaitable[T]], deadline_s: float, reached: Callable[[], bool] = lambda: True
) -> T:
    """Try until it succeeds, fails for good, or the deadline has passed, with growing and random pauses.

    The service's own word on when to come back is heeded. Where it has not been reached yet, patience ends early.
    """
    started, (pause, longest) = time.monotonic(), BACKOFF_S
    while True:
        try:
            return await attempt()
        except UnreachableError as error:
            wait = error.retry_after_s * random.uniform(1.0, 1.2) + pause * random.uniform(0.5, 1.5)
            patience = deadline_s if error.throttled or reached() else min(FIRST_PATIENCE_S, deadline_s)
            if time.monotonic() - started + wait > patience:
                raise
        await asyncio.sleep(wait)
        pause = min(2 * pause, longest)


async def together(works: Iterable[Awaitable[T]]) -> list[T]:
    """All results; where some fail, the first failure, once none is under way any more."""
    ended = await asyncio.gather(*works, return_exceptions=True)
    results: list[T] = []
    for result in ended:
        if isinstance(result, BaseException):
            raise result
        results.append(result)
    return results
