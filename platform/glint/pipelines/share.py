"""Which rows a rank reads, and in which order: a function of the seed and the epoch alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Share:
    """Which rows of a table one rank reads, and in which order.

    With a seed, epoch e is permutation(seed, e), cut into global batches of `batch_size` and padded from its own
    beginning so that the last is full; `balanced` takes as many rows of each class instead, the rare ones repeatedly.
    Ranks take slices of a batch that differ by one `unit` of rows at most. Without a seed, it is every row once, in
    order.
    """

    num_rows: int
    rank: int = 0
    world_size: int = 1
    seed: int | None = None
    batch_size: int = 1
    balanced: bool = False
    unit: int = 1
    """Rows that stay on one rank: 2 where images are mixed in pairs. Divides `batch_size`."""

    @property
    def steps(self) -> int:
        """Global batches in an epoch."""
        return -(-self.num_rows // self.batch_size)

    @property
    def local_batch(self) -> int:
        """Rows of a global batch that are this rank's."""
        return len(self._slice)

    @property
    def num_local_rows(self) -> int:
        """Rows of this rank in an epoch."""
        if self.seed is None:
            return len(range(self.rank, self.num_rows, self.world_size))
        return self.steps * self.local_batch

    def rows(self, epoch: int, targets: np.ndarray[Any, Any] | None = None) -> np.ndarray[Any, Any]:
        """The row numbers of this rank in that epoch, int64; `targets` (N,), class indices, are for `balanced`."""
        if self.seed is None:
            return np.arange(self.num_rows)[self.rank :: self.world_size]
        return self._mine(self._drawn(epoch, targets))

    def repeats(self, epoch: int, targets: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """For each of these rows, how often it has come before in that epoch, on any rank; int64."""
        drawn = self._drawn(epoch, targets)
        by_row = np.argsort(drawn, kind="stable")
        _, firsts, counts = np.unique(drawn[by_row], return_index=True, return_counts=True)
        before = np.empty_like(drawn)
        before[by_row] = np.arange(len(drawn)) - np.repeat(firsts, counts)
        return self._mine(before)

    def _drawn(self, epoch: int, targets: np.ndarray[Any, Any] | None) -> np.ndarray[Any, Any]:
        """The rows of all ranks, one global batch after the other."""
        assert self.seed is not None
        generator = np.random.default_rng((self.seed, epoch))
        if self.balanced:
            assert targets is not None
            order = _balanced(targets, generator)
        else:
            order = generator.permutation(self.num_rows)
        return np.resize(order, self.steps * self.batch_size)

    def _mine(self, drawn: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return drawn.reshape(self.steps, self.batch_size)[:, self._slice].ravel()

    @property
    def _slice(self) -> range:
        """Where in a global batch this rank's rows are."""
        units = self.batch_size // self.unit
        first, end = (self.unit * (units * rank // self.world_size) for rank in (self.rank, self.rank + 1))
        return range(first, end)


def _balanced(targets: np.ndarray[Any, Any], generator: np.random.Generator) -> np.ndarray[Any, Any]:
    """N rows in random order, as many of each class as of any other; a class is used up before a row comes again."""
    classes = [np.flatnonzero(targets == target) for target in np.unique(targets)]
    sizes = [len(part) for part in np.array_split(targets, len(classes))]
    drawn = [np.resize(generator.permutation(rows), size) for rows, size in zip(classes, sizes, strict=True)]
    return generator.permutation(np.concatenate(drawn))
