"""Classifies images off the event loop: a thread a core, each decoding an image and then inferring."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
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
        self._began: dict[int, float] = {}
        self._inferring: dict[int, tuple[float, Predictor]] = {}

    async def classify(self, predictor: Predictor, data: bytes, top_k: int) -> tuple[Prediction, dict[str, float]]:
        """An encoded image's prediction, and the milliseconds of each stage; raises ImageError.

        `admission.check` is the caller's, once a request: its own images are not ahead of one another.
        """
        with ExitStack() as held:
            held.enter_context(self.admission.admitted())
            return await self._threaded(held, self._classify, predictor, data, top_k, perf_counter())

    async def run(self, work: Callable[..., Answer], *arguments: Any, turn: asyncio.Lock | None = None) -> Answer:
        """Any other work on an image; it counts as an image does, also while it waits for its `turn`."""

        def worked() -> Answer:
            with self._working():
                return work(*arguments)

        with ExitStack() as held:
            held.enter_context(self.admission.admitted())
            if turn:
                await turn.acquire()
                held.callback(_release, turn, asyncio.get_running_loop())
            return await self._threaded(held, worked)

    async def _threaded(self, held: ExitStack, work: Callable[..., Answer], *arguments: Any) -> Answer:
        """What `work` comes to in a thread; `held` ends when the thread has, though the caller may have gone before."""
        running = self._threads.submit(work, *arguments)
        ending = held.pop_all()
        running.add_done_callback(lambda _: ending.close())
        return await asyncio.wrap_future(running)

    def check(self) -> None:
        """Raise RuntimeError when a thread has worked on one image for longer than any image takes."""
        oldest = min(list(self._began.values()), default=None)
        if oldest is not None and perf_counter() - oldest > STUCK_AFTER_S:
            raise RuntimeError(f"an image has been worked on for more than {STUCK_AFTER_S} s")

    def inferring_s(self, predictor: Predictor) -> float:
        """For how long this predictor's network has been at an image by now; the longest."""
        now = perf_counter()
        return max((now - began for began, whose in list(self._inferring.values()) if whose is predictor), default=0.0)

    def _classify(
        self, predictor: Predictor, data: bytes, top_k: int, arrived: float
    ) -> tuple[Prediction, dict[str, float]]:
        with self._working() as began:
            prepared = predictor.prepare(data)
            decoded = perf_counter()
            self._inferring[threading.get_ident()] = decoded, predictor
            try:
                prediction = predictor.interpret(predictor.score_one(prepared.pixels), top_k)
            finally:
                del self._inferring[threading.get_ident()]
            stages = {"wait": began - arrived, "decode": decoded - began, "infer": perf_counter() - decoded}
            return prediction, {stage: 1000 * duration for stage, duration in stages.items()}

    @contextmanager
    def _working(self) -> Iterator[float]:
        """While this thread works on an image; since when, by perf_counter."""
        began = perf_counter()
        self._began[threading.get_ident()] = began
        try:
            with self.admission.at_work():
                yield began
        finally:
            del self._began[threading.get_ident()]


def _release(turn: asyncio.Lock, loop: asyncio.AbstractEventLoop) -> None:
    """From whichever thread."""
    with suppress(RuntimeError):  # the loop has ended, and with it all that wait
        loop.call_soon_threadsafe(turn.release)


def warm_up(predictor: Predictor) -> None:
    """The first caller should not pay for what an engine does but once."""
    settings = predictor.bundle.info.preprocessing
    predictor.score(torch.zeros((1, settings.num_channels, *2 * [settings.image_size]), dtype=torch.uint8))
