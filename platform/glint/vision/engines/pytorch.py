"""The eager PyTorch engine: every backbone, on a GPU where there is one."""

from __future__ import annotations

import torch

from glint.vision.backbone import build_model
from glint.vision.bundle import Bundle
from glint.vision.transforms import normalise


class TorchEngine:
    """Runs a bundle's network in float32; safe to call from several threads."""

    name = "torch"

    def __init__(self, bundle: Bundle) -> None:
        info = bundle.info
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._preprocessing = info.preprocessing
        settings = info.preprocessing
        model = build_model(info.backbone, len(info.classes), "none", settings.num_channels, settings.image_size)
        model.load_state_dict(bundle.weights())
        self._model = model.eval().to(self._device)

    @torch.inference_mode()
    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 images (N, 3, S, S) -> float32 logits (N, C) on the CPU."""
        batch = normalise(images.to(self._device), *self._preprocessing.normalisation)
        return self._model(batch).float().cpu()  # type: ignore[no-any-return]
