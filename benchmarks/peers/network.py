"""The same weights as a LitServe or BentoML service has them, one image at a time on one thread.

ENGINE=eager: PyTorch. ENGINE=openvino-fp32: glint's own engine of that name. Decoding is glint's (torchvision's) too.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch

from glint.vision.backbone import build_model
from glint.vision.bundle import Bundle
from glint.vision.transforms import load_image, normalise


class Network:
    """Classifies encoded images; a process for each core does best on a CPU."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        bundle = Bundle(Path(os.environ["BUNDLE"]))
        self._info = bundle.info
        self._logits = (openvino if os.environ["ENGINE"] == "openvino-fp32" else eager)(bundle)

    def __call__(self, data: bytes) -> dict[str, object]:
        """The label and its probability."""
        settings = self._info.preprocessing
        pixels = load_image(data, settings).pixels
        shares = self._logits(pixels[None]).softmax(1)[0]
        return {"label": self._info.classes[int(shares.argmax())], "confidence": float(shares.max())}


def eager(bundle: Bundle) -> Callable[[torch.Tensor], torch.Tensor]:
    """The network in eager PyTorch."""
    info, settings = bundle.info, bundle.info.preprocessing
    model = build_model(info.backbone, len(info.classes), "none").eval()
    model.load_state_dict(bundle.weights())

    def logits(images: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            found: torch.Tensor = model(normalise(images, settings.mean, settings.std))
        return found

    return logits


def openvino(bundle: Bundle) -> Callable[[torch.Tensor], torch.Tensor]:
    """The network in OpenVINO, one stream: its process has one core."""
    from glint.vision.engines.conversion import STEMS, read
    from glint.vision.engines.openvino_engine import OpenVinoEngine

    model = read(bundle, STEMS["openvino-fp32"])
    assert model is not None
    engine = OpenVinoEngine(model, "openvino-fp32", num_streams=1)
    return lambda images: torch.from_numpy(engine.logits(images))
