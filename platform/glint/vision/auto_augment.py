"""The automatic augmentation policies of timm and torchvision, made to depend on a seed alone."""

from __future__ import annotations

import random
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from torchvision.transforms.v2 import TrivialAugmentWide
from torchvision.transforms.v2 import functional as F

MEAN_COLOUR = (124, 116, 104)
"""What a rotation or a shear brings in: ImageNet's mean, as timm does."""
MOST = 9.99
"""Of timm's magnitude: at 10 it would posterise to no bits at all, which Pillow refuses."""


def automatic(
    image: torch.Tensor, kind: Literal["rand_augment", "trivial_augment"], magnitude: int, seed: int
) -> torch.Tensor:
    """Vary a uint8 image (C, S, S), C = 1 or 3, by one of the two; both draw from global generators, seeded here.

    RandAugment (Cubuk et al., 2020): timm's rand-mM-mstd0.5-inc1. TrivialAugmentWide (Mueller and Hutter, 2021).
    """
    colour = image.expand(3, -1, -1)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if kind == "rand_augment":
        varied = F.pil_to_tensor(_rand_augment(magnitude)(F.to_pil_image(colour)))
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            varied = _trivial_augment()(colour)
    result: torch.Tensor = F.rgb_to_grayscale(varied) if len(image) == 1 else varied
    return result


@cache
def _rand_augment(magnitude: int) -> Any:
    from timm.data.auto_augment import rand_augment_transform  # here: what only decodes need not wait for timm

    settings = {"img_mean": MEAN_COLOUR, "magnitude_max": MOST}
    return rand_augment_transform(f"rand-m{magnitude}-mstd0.5-inc1", settings)


@cache
def _trivial_augment() -> Any:
    return TrivialAugmentWide(fill=list(map(float, MEAN_COLOUR)))
