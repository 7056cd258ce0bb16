"""The network as a stage of Ray Data, for ray_docs.py; of what stands in a script itself, Ray would pickle all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from glint.vision.backbone import build_model
from glint.vision.bundle import Bundle
from glint.vision.transforms import normalise


class Network:
    """The bundle's weights in eager PyTorch, on one thread: an actor for each core does best on a CPU."""

    def __init__(self, directory: Path) -> None:
        torch.set_num_threads(1)
        bundle = Bundle(directory)
        self._info = bundle.info
        self._model = build_model(self._info.backbone, len(self._info.classes), "none").eval()
        self._model.load_state_dict(bundle.weights())

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """uint8 images (N, S, S, 3) -> the label of each and its probability."""
        pixels = torch.from_numpy(batch["image"].copy()).permute(0, 3, 1, 2)
        with torch.inference_mode():
            shares = self._model(normalise(pixels, *self._info.preprocessing.normalisation)).softmax(1)
        best = shares.max(1)
        labels = np.array(self._info.classes)[best.indices.numpy()]
        return {"path": batch["path"], "label": labels, "confidence": best.values.numpy()}
