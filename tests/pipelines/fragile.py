"""A model whose decoder can be killed and stopped by pictures, for processes that import no test."""

import os
import signal
import time

from glint.vision.predictor import Predictor
from glint.vision.transforms import Loaded

DEADLY, ENDLESS = 255, 0


class Fragile(Predictor):
    """Dies of white pictures and never ends with black ones."""

    def prepare(self, data: bytes | memoryview) -> Loaded:
        loaded = super().prepare(data)
        if (loaded.pixels == DEADLY).all():
            os.kill(os.getpid(), signal.SIGSEGV)
        while (loaded.pixels == ENDLESS).all():
            time.sleep(1)
        return loaded
