"""What every engine offers."""

from __future__ import annotations

import os
from concurrent.futures import Future
from typing import Protocol

import numpy as np
import torch

from glint.core.engines import EngineName

Logits = np.ndarray[tuple[int, int], np.dtype[np.float32]]


class Engine(Protocol):
    """Runs a bundle's network; safe to call from several threads, and bound to the process that opened it.

    `name` goes into outcomes. `num_streams` images run at once: so many are worth keeping in flight. `batch_size`
    images are worth submitting together: 1 on a CPU, where a batch is no faster.
    """

    name: EngineName
    num_streams: int
    batch_size: int

    def submit(self, images: torch.Tensor) -> Future[Logits]:
        """uint8 images (N, C, S, S), N > 0 -> float32 logits (N, classes); RuntimeError is set where it fails.

        Returns at once. Whatever is attached to the future runs in the engine's own thread and must be quick.
        """

    def logits(self, images: torch.Tensor) -> Logits:
        """The same, waiting for the result."""

    def close(self) -> None:
        """Give threads and memory back; nothing may be submitted any more."""


def num_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0))
