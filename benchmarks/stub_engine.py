"""A model that costs nothing, for what a batch job costs beside its images and its model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from glint.adapters.images import Images
from glint.vision.bundle import Bundle
from glint.vision.predictor import Predictor, Probabilities
from glint.vision.transforms import Loaded

PIXELS = torch.zeros((3, 8, 8), dtype=torch.uint8)


class StubImages(Images):
    """Every address has an image of no bytes."""

    def read(self, uri: str, etag: str | None = None) -> bytes:
        """Nothing, at once."""
        return b""


class StubPredictor(Predictor):
    """Every image is black, and as surely good as not."""

    def prepare(self, data: bytes | memoryview) -> Loaded:
        """The same few pixels."""
        return Loaded(PIXELS, 8, 8)

    def score(self, images: torch.Tensor) -> Probabilities:
        """Even shares."""
        return np.full((len(images), len(self.classes)), 1 / len(self.classes), np.float32)


def open_stub(bundle: Path) -> StubPredictor:
    """The stub with the identity of a bundle."""
    return StubPredictor(Bundle(bundle))
