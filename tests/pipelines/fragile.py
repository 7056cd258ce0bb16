"""A model whose decoder can be killed and stopped by pictures, for processes that import no test."""

import signal
import threading
import time

import numpy as np
import torch

from glint.vision.predictor import Predictor
from glint.vision.transforms import Loaded

DEADLY, ENDLESS = 255, 0


class Fragile(Predictor):
    """Dies of white pictures and never ends with black ones."""

    def prepare(self, data: bytes | memoryview) -> Loaded:
        loaded = super().prepare(data)
        if (loaded.pixels == DEADLY).all():
            signal.raise_signal(signal.SIGSEGV)  # in this very thread, which says nothing more
        while (loaded.pixels == ENDLESS).all():
            time.sleep(1)
        return loaded


class Jealous(Predictor):
    """Scores one image at a time; with a second one beside it, it dies, or never ends where it is `Patient`."""

    def __init__(self, *arguments: object, **named: object) -> None:
        super().__init__(*arguments, **named)  # type: ignore[arg-type]
        self._busy = threading.Lock()

    def score(self, images: torch.Tensor) -> np.ndarray:
        if not self._busy.acquire(blocking=False):
            self.give_up()
        try:
            time.sleep(0.02)  # long enough for a second one to come
            return super().score(images)
        finally:
            self._busy.release()

    def give_up(self) -> None:
        signal.raise_signal(signal.SIGSEGV)


class Patient(Jealous):
    """Its second image never ends."""

    def give_up(self) -> None:
        while True:
            time.sleep(1)


class Unwritten(Predictor):
    """Dies when all images of a chunk are scored and their outcomes are made."""

    def interpret(self, *_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGSEGV)


class Stuck(Predictor):
    """Decodes as any other, and its engine never ends."""

    def score(self, images: torch.Tensor) -> np.ndarray:
        while True:
            time.sleep(1)
