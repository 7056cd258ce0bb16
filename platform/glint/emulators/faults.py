"""Faults that a proxy can make of a request, and what a policy sees of it to choose."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Self

Kind = Literal["status", "reset", "lost", "delay", "truncate"]


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request; the class methods name the kinds."""

    kind: Kind
    code: int = 0
    retry_after_ms: int | None = None
    substatus: int | None = None
    operation: int | None = None
    seconds: float = 0.0

    @classmethod
    def status(
        cls, code: int, retry_after_ms: int | None = None, substatus: int | None = None, operation: int | None = None
    ) -> Self:
        """An error instead of the answer; nothing is applied.

        With `operation` a batch is answered 207: that operation of it failed with `code`, the others with 424.
        """
        return cls("status", code, retry_after_ms, substatus, operation)

    @classmethod
    def reset(cls) -> Self:
        """The connection breaks before anything is applied."""
        return cls("reset")

    @classmethod
    def lost(cls) -> Self:
        """The request is applied, then the connection breaks before the answer."""
        return cls("lost")

    @classmethod
    def delay(cls, seconds: float) -> Self:
        """The request waits so long before it is applied and answered."""
        return cls("delay", seconds=seconds)

    @classmethod
    def truncate(cls) -> Self:
        """All of the answer's header, half of its body, then the connection breaks."""
        return cls("truncate")


@dataclass(frozen=True)
class Asked:
    """A request as a policy sees it.

    `operation` of Cosmos DB: create, upsert, replace, patch, delete, batch, read, query or metadata (the account,
    databases, containers and their partitions). Of Blob Storage: get, head, put, post, delete, or list for GET with
    `comp=list`.
    """

    operation: str
    method: str
    path: str
    """With its query, as it was sent."""
    headers: Mapping[str, str]
    body: bytes


FaultHook = Callable[[Asked], Awaitable[Fault | None]]
"""Decides what goes wrong with a request, in the proxy's own event loop; None lets it pass."""
