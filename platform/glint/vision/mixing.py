"""What training does to a batch on its device: erasing rectangles, and mixing images with one another."""

from __future__ import annotations

import random
from collections.abc import Iterable

import torch
from timm.data.mixup import Mixup
from timm.data.random_erasing import RandomErasing


def erase(pixels: torch.Tensor, probability: float, seeds: Iterable[int]) -> torch.Tensor:
    """Set a random rectangle of each normalised image (N, C, S, S) to the mean colour, in place, by timm.

    An image's rectangle, and whether it has one, depend on its seed alone.
    """
    eraser = RandomErasing(probability, mode="const", device=str(pixels.device))
    for image, seed in zip(pixels, seeds, strict=True):
        random.seed(seed)
        eraser(image)
    return pixels


class Mixing:
    """Mixup (Zhang et al., 2018) and CutMix (Yun et al., 2019) by timm: one share for a whole batch.

    It draws from NumPy's global generator, which the caller seeds. timm mixes image i with image N - 1 - i, so the
    batch must be of even length.
    """

    def __init__(self, mixup: float, cutmix: float, num_classes: int, multi_label: bool) -> None:
        self._mix = Mixup(
            mixup_alpha=mixup,
            cutmix_alpha=cutmix,
            num_classes=num_classes,
            label_smoothing=0.0,  # the loss smooths
            multi_label=multi_label,
        )

    def __call__(
        self, pixels: torch.Tensor, targets: torch.Tensor, good: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Mix images (N, C, S, S) in place; returns them, their classes' shares (N, C), and which have no bad part."""
        pixels, shares = self._mix(pixels, targets)
        return pixels, shares, good & good.flip(0)
