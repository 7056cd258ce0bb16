"""Classifies images off the event loop: a thread a core, each decoding an image and then inferring."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

import torch

from glint.core.outcome import Prediction
from glint.vision.predictor import Predictor

STUCK_AFTER_S = 60


class Classifier:
    """A predictor and its threads, by default one for each core.

    On a CPU a batch of one is as fast as a batch of sixteen, so no image waits for others; and an image on each core
    is faster than every core on one image, so torch is held to one thread within each of ours, in the whole process.
    """

    def __init__(self, predictor: Predictor, num_threads: int | None = None) -> None:
        torch.set_num_threads(1)
        self._predictor = predictor
        self._threads = ThreadPoolExecutor(num_threads or os.cpu_count(), "classify")
        self._began: dict[int, float] = {}
        self._warm_up()

    async def classify(self, data: bytes, top_k: int) -> tuple[Prediction, dict[str, float]]:
        """An encoded image's prediction, and the milliseconds of each stage; raises ImageError."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._classify, data, top_k, perf_counter())

    def check(self) -> None:
        """Raise RuntimeError when a thread has worked on one image for longer than any image takes."""
        oldest = min(list(self._began.values()), default=None)
        if oldest is not None and perf_counter() - oldest > STUCK_AFTER_S:
            raise RuntimeError(f"an image has been worked on for more than {STUCK_AFTER_S} s")

    def _classify(self, data: bytes, top_k: int, arrived: float) -> tuple[Prediction, dict[str, float]]:
        began = self._began[threading.get_ident()] = perf_counter()
        try:
            prepared = self._predictor.prepare(data)
            decoded = perf_counter()
            prediction = self._predictor.interpret(self._predictor.score(prepared.pixels[None])[0], top_k)
            stages = {"wait": began - arrived, "decode": decoded - began, "infer": perf_counter() - decoded}
            return prediction, {stage: 1000 * duration for stage, duration in stages.items()}
        finally:
            del self._began[threading.get_ident()]

    def _warm_up(self) -> None:
        """The first caller should not pay for what an engine does but once."""
        settings = self._predictor.bundle.info.preprocessing
        self._predictor.score(torch.zeros((1, settings.num_channels, *2 * [settings.image_size]), dtype=torch.uint8))
