"""Which images of a chunk are worked on: memory that the process that scores shares with what watches it.

Whatever the process dies of, what it wrote last is there to be read. To be told of each image through a pipe cost an
image half a millisecond of a core, for the writing, the reading and the waking up.
"""

from __future__ import annotations

import mmap
import os
import time
from typing import Any

import numpy as np

WAITING, ENDED = np.nan, np.inf


class InFlight:
    """For each row of a chunk, when a step of it began by time.monotonic(); it waits, or has ended, else.

    One process writes, and another one reads at any time; a value is written whole or not at all.
    """

    def __init__(self, since: np.ndarray[Any, np.dtype[np.float64]]) -> None:
        self._since = since

    def begin(self, row: int) -> None:
        """A step of a row begins."""
        self._since[row] = time.monotonic()

    def pause(self, row: int) -> None:
        """A row waits for its next step: nothing can go wrong with it meanwhile."""
        self._since[row] = WAITING

    def end(self, row: int) -> None:
        """A row has ended."""
        self._since[row] = ENDED

    def clear(self) -> None:
        """No row has begun."""
        self._since[:] = WAITING

    def since(self) -> dict[int, float]:
        """Rows that are worked on, and since when."""
        now = self._since.copy()
        return {int(row): float(now[row]) for row in np.flatnonzero(np.isfinite(now))}

    def ended(self) -> set[int]:
        """Rows that have ended."""
        return set(np.flatnonzero(np.isinf(self._since)).tolist())


class SharedMemory:
    """Room for several chunks of up to `num_rows`, as a file in memory; a child process opens it by its descriptor.

    Each is to be cleared before it is used.
    """

    def __init__(self, num_chunks: int, num_rows: int) -> None:
        self.descriptor = os.memfd_create("glint-in-flight")
        os.ftruncate(self.descriptor, num_chunks * num_rows * np.dtype(np.float64).itemsize)
        self.chunks = opened(self.descriptor, num_rows)

    def close(self) -> None:
        """Give the descriptor back; what is open stays readable."""
        os.close(self.descriptor)


def opened(descriptor: int, num_rows: int) -> list[InFlight]:
    """The chunks of a SharedMemory."""
    values = np.frombuffer(mmap.mmap(descriptor, 0), np.float64)
    return [InFlight(chunk) for chunk in values.reshape(-1, num_rows)]
