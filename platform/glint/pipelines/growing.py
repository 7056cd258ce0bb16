"""Images that grow from epoch to epoch: small ones cost less while there is still much to learn."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from glint.core.recipe import Recipe

SIZE_STEP = 32
"""Pixels: what a growing image grows by; the stride of most backbones."""
FULL_SIZE_FROM = 0.75
"""Share of the epochs after which a growing image has its full size; the last epoch has it always."""


def image_size(recipe: Recipe, epoch: int) -> int:
    """The side of the images of an epoch: from start_size to the full size in steps of SIZE_STEP pixels."""
    full, start = recipe.preprocessing.image_size, recipe.optimisation.start_size
    growing = min(FULL_SIZE_FROM * recipe.optimisation.epochs, recipe.optimisation.epochs - 1)
    if start is None or epoch >= growing:
        return full
    sizes = [*range(start, full, SIZE_STEP)]
    return sizes[int(epoch / growing * len(sizes))] if sizes else full


def resized(pixels: torch.Tensor, size: int) -> torch.Tensor:
    """Normalised images (N, C, S, S) at another side, bilinear and antialiased."""
    if pixels.shape[-1] == size:
        return pixels
    return F.interpolate(pixels, (size, size), mode="bilinear", antialias=True)
