"""The same weights in eager PyTorch, as a LitServe or BentoML service has them; decoding is torchvision's."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from glint.vision.backbone import build_model
from glint.vision.bundle import Bundle
from glint.vision.transforms import load_image, normalise


class Eager:
    """Classifies one encoded image at a time, on one thread: a process for each core does best on a CPU."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        bundle = Bundle(Path(os.environ["BUNDLE"]))
        self._info = bundle.info
        self._model = build_model(self._info.backbone, len(self._info.classes), "none").eval()
        self._model.load_state_dict(bundle.weights())

    def __call__(self, data: bytes) -> dict[str, object]:
        """The label and its probability."""
        settings = self._info.preprocessing
        pixels = load_image(data, settings).pixels
        with torch.inference_mode():
            shares = self._model(normalise(pixels[None], settings.mean, settings.std)).softmax(1)[0]
        return {"label": self._info.classes[int(shares.argmax())], "confidence": float(shares.max())}
