"""Classifies images off the event loop: a thread a core, each decoding an image and then inferring."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from time import perf_counter
from typing import Any, TypeVar

import torch

from glint.core.outcome import Prediction
from glint.serving.admission import Admission
from glint.vision.engines.engine import num_cores
from glint.vision.predictor import Predictor

Answer = TypeVar("Answer")
STUCK_AFTER_S = 60
MAX_WAIT_S = 2.0


class Classifier:
    """Threads that predictors work on, by default one for each core.

    On a CPU a batch of one is as fast as a batch of sixteen, so no image waits for others (on a GPU predictors score
    those of several threads together); and an image on each core is faster than every core on one image, so torch is
    held to one thread within each of ours, in the whole process.
    Several models share the threads, for there are no more cores with two models than with one.
    """

    def __init__(self, num_threads: int | None = None, max_wait_s: float = MAX_WAIT_S) -> None:
        torch.set_num_threads(1)
        num_threads = num_threads or num_cores()
        self.admission = Admission(num_threads, max_wait_s)
        self._threads = ThreadPoolExecutor(num_threads, "classify")
        self._began: dict[int, tuple[float, Predictor]] = {}

    async def classify(self, predictor: Predictor, data: bytes, top_k: int) -> tuple[Prediction, dict[str, float]]:
        """An encoded image's prediction, and the milliseconds of each stage; raises ImageError.

        `admission.check` is the caller's, once a request: its own images are not ahead of one another.
        """
        loop = asyncio.get_running_loop()
        with self.admission.admitted():
            return await loop.run_in_executor(self._threads, self._classify, predictor, data, top_k, perf_counter())

    async def run(
        self, predictor: Predictor, work: Callable[..., Answer], *arguments: Any, turn: asyncio.Lock | None = None
    ) -> Answer:
        """Any other work on a predictor's image; it counts as an image does, also while it waits for its `turn`."""

        def worked() -> Answer:
            with self._working(predictor):
                return work(*arguments)

        with self.admission.admitted():
            async with turn or nullcontext():
                return await asyncio.get_running_loop().run_in_executor(self._threads, worked)

    def check(self) -> None:
        """Raise RuntimeError when a thread has worked on one image for longer than any image takes."""
        oldest = min((began for began, _ in list(self._began.values())), default=None)
        if oldest is not None and perf_counter() - oldest > STUCK_AFTER_S:
            raise RuntimeError(f"an image has been worked on for more than {STUCK_AFTER_S} s")

    def working_s(self, predictor: Predictor) -> float:
        """For how long a thread has been at this predictor's image by now; the longest."""
        now = perf_counter()
        return max((now - began for began, whose in list(self._began.values()) if whose is predictor), default=0.0)

    def _classify(
        self, predictor: Predictor, data: bytes, top_k: int, arrived: float
    ) -> tuple[Prediction, dict[str, float]]:
        with self._working(predictor) as began:
            prepared = predictor.prepare(data)
            decoded = perf_counter()
            prediction = predictor.interpret(predictor.score_one(prepared.pixels), top_k)
            stages = {"wait": began - arrived, "decode": decoded - began, "infer": perf_counter() - decoded}
            return prediction, {stage: 1000 * duration for stage, duration in stages.items()}

    @contextmanager
    def _working(self, predictor: Predictor) -> Iterator[float]:
        """While this thread works on an image; since when, by perf_counter."""
        began = perf_counter()
        self._began[threading.get_ident()] = began, predictor
        try:
            with self.admission.at_work():
                yield began
        finally:
            del self._began[threading.get_ident()]


def warm_up(predictor: Predictor) -> None:
    """The first caller should not pay for what an engine does but once."""
    settings = predictor.bundle.info.preprocessing
    predictor.score(torch.zeros((1, settings.num_channels, *2 * [settings.image_size]), dtype=torch.uint8))
