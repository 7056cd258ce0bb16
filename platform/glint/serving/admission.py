"""Sheds load before latency collapses: an image that would wait too long is refused at once."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from glint.serving.problems import ProblemError

WEIGHT = 0.1
"""Of the latest image in the running mean of what one takes."""


class Admission:
    """Counts the images at work on `num_threads` and expects a wait from how long the latest took.

    Above `max_wait_s` it refuses: by the wait and not by the number, since one model's images take a hundred times as
    long as another's. Safe to use from several threads.
    """

    def __init__(self, num_threads: int, max_wait_s: float) -> None:
        self._num_threads, self._max_wait_s = num_threads, max_wait_s
        self._lock = threading.Lock()
        self._mean_s = 0.0
        self.pending = 0

    @property
    def expected_wait_s(self) -> float:
        """Until an image that came now would be begun with."""
        ahead = max(0, self.pending + 1 - self._num_threads)
        return ahead * self._mean_s / self._num_threads

    @property
    def idle(self) -> bool:
        """Whether a thread has nothing to do."""
        return self.pending < self._num_threads

    def check(self) -> None:
        """Raise ProblemError 503 where an image that came now would wait too long."""
        wait_s = self.expected_wait_s
        if wait_s > self._max_wait_s:
            after_s = max(1, math.ceil(wait_s - self._max_wait_s))
            message = f"an image would wait {wait_s:.1f} s, which is too long; try again after {after_s} s"
            raise ProblemError(503, "overloaded", message, {"Retry-After": str(after_s)})

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """While an image is waiting and worked on, whose request `check` has let in."""
        with self._lock:
            self.pending += 1
        try:
            yield
        finally:
            with self._lock:
                self.pending -= 1

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """While a thread works on an image: how long one takes is learnt from it."""
        began = perf_counter()
        try:
            yield
        finally:
            took_s = perf_counter() - began
            with self._lock:
                self._mean_s += (took_s - self._mean_s) * (WEIGHT if self._mean_s else 1)
