"""Which addresses a request may name: az:// prefixes on a list, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from glint.core.errors import GlintError
from glint.serving.held import Held
from glint.serving.problems import ProblemError

if TYPE_CHECKING:
    from glint.adapters.images import Images

ROOM_WAIT_S = 30
READERS = 16
"""Blobs that a replica reads at a time, on threads of their own: an account that hangs holds up nothing else."""


class AllowedUris:
    """Reads blobs below `prefixes`, each az://CONTAINER or az://CONTAINER/PREFIX, as far as `held` takes them."""

    def __init__(self, images: Images, prefixes: Sequence[str], held: Held | None = None) -> None:
        self._images, self._prefixes = images, tuple(prefix.rstrip("/") + "/" for prefix in prefixes)
        self._held = held or Held()
        self._threads = ThreadPoolExecutor(READERS, "read-uri")
        self._reading = asyncio.Semaphore(READERS)

    @asynccontextmanager
    async def open(self, uri: str) -> AsyncIterator[bytes]:
        """The blob's bytes, for as long as they are needed.

        Waits for room, which those that are answered make: a request's own blobs are not in each other's way. Raises
        ProblemError 403 for an address not on the list and 503 where there is no room, ImageError as reading does.
        """
        if not (uri.startswith(self._prefixes) and _is_plain(uri)):
            raise ProblemError(403, "uri_not_allowed", f"{uri[:200]!r} is below no prefix that this server may read")
        async with self._reading:
            data = await asyncio.get_running_loop().run_in_executor(self._threads, self._images.read, uri)
            await self._held.take_in_turn(len(data), ROOM_WAIT_S)
        try:
            yield data
        finally:
            self._held.give_back(len(data))


def check_prefixes(prefixes: Sequence[str], account: str | None) -> None:
    """Raise GlintError for a prefix that is none, or that no storage account is set up for."""
    for prefix in prefixes:
        if not _is_plain(prefix.removesuffix("/")):
            raise GlintError(f"GLINT_SERVE_URIS: {prefix!r} must be az://CONTAINER or az://CONTAINER/PREFIX")
    if prefixes and not account:
        raise GlintError(
            f"GLINT_SERVE_URIS {list(prefixes)} needs a storage account: set GLINT_BLOB_ACCOUNT to its name"
        )


def _is_plain(uri: str) -> bool:
    """Whether it begins with az:// and a container, and has no part that is empty or leads elsewhere."""
    return uri.startswith("az://") and not {"", ".", ".."} & set(uri.removeprefix("az://").split("/"))
