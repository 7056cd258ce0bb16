"""How many bytes requests hold in memory at a time."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from glint.serving.problems import ProblemError

POLL_S = 0.02
LITTLE = 1_000_000
"""Bytes of a usual image, and more."""


class Held:
    """Bytes that are held; beyond `max_bytes`, None = no bound, no more are taken. Used by one event loop."""

    def __init__(self, max_bytes: int | None = None) -> None:
        self._max_bytes = max_bytes
        self.num_bytes = 0

    def take(self, size: int, brought: int | None = None) -> None:
        """Hold so many more; raises ProblemError 503, holding nothing of them, where they are too many.

        Of who has `brought` something, a quarter of the room is for those who take little: to them it is left by large
        bodies that stall.
        """
        if not size:
            return  # such as the end of a body that is here
        room = self._max_bytes
        if room is not None and brought is not None and brought + size > LITTLE:
            room -= room // 4
        if room is not None and self.num_bytes + size > room:
            said = "the images of other requests fill the memory; try again after 1 s"
            raise ProblemError(503, "overloaded", said, {"Retry-After": "1"})
        self.num_bytes += size

    async def take_in_turn(self, size: int, wait_s: float) -> None:
        """Hold so many more once there is room; raises as `take` does where there is none in that time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                while self._max_bytes is not None and self.num_bytes and self.num_bytes + size > self._max_bytes:
                    await asyncio.sleep(POLL_S)
        self.take(size)

    def give_back(self, size: int) -> None:
        """Hold so many less."""
        self.num_bytes -= size
