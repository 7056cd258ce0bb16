"""Pixels to the model's input: resize and normalise for every path, and augment for training alone."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torchvision.transforms.v2 import functional as F

from glint.vision.auto_augment import automatic
from glint.vision.decode import DEFAULT_LIMITS, Limits, decode_for

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from glint.core.recipe import Preprocessing

Resize = Literal["squash", "crop"]
AugmentPolicy = Literal["none", "flip", "dihedral"]
Fill = Literal["reflect", "wrap"]
Auto = Literal["none", "rand_augment", "trivial_augment"]


@dataclass(frozen=True)
class Loaded:
    """A decoded image at the model's size, with the size it came in."""

    pixels: torch.Tensor
    """uint8 (C, S, S), C = 3 or, for a gray model, 1"""
    width: int
    height: int


def load_image(data: Buffer, preprocessing: Preprocessing, limits: Limits = DEFAULT_LIMITS) -> Loaded:
    """Encoded bytes to the uint8 (C, S, S) that a model is fed, for every path alike; raises DecodeError."""
    size, crop_pct = preprocessing.image_size, preprocessing.crop_pct
    image = decode_for(data, math.ceil(size / crop_pct), limits)
    pixels = F.rgb_to_grayscale(image.pixels) if preprocessing.channels == "gray" else image.pixels
    return Loaded(resize(pixels, size, preprocessing.resize, crop_pct), image.width, image.height)


def resize(image: torch.Tensor, size: int, mode: Resize = "squash", crop_pct: float = 1.0) -> torch.Tensor:
    """Bring a uint8 image (C, H, W) to (C, size, size), bilinear and antialiased; untouched if it has that size.

    `squash` stretches the whole image to a square: nothing at the border is lost. `crop` takes the largest centred
    square: the same picture as shorter side to size and then centre crop, without resizing what is thrown away.
    Of either, `crop_pct` keeps a share of each side about the centre (timm's name for it).
    """
    height, width = image.shape[-2:]
    kept = kept_size(height, width, mode, crop_pct)
    if kept != (height, width):
        image = F.center_crop(image, list(kept))
    if kept == (size, size):
        return image
    resized: torch.Tensor = F.resize(image, [size, size], antialias=True)
    return resized


def kept_size(height: int, width: int, mode: Resize = "squash", crop_pct: float = 1.0) -> tuple[int, int]:
    """Height and width of what `resize` keeps of an image, about its centre."""
    if mode == "crop":
        height = width = min(height, width)
    return max(1, round(height * crop_pct)), max(1, round(width * crop_pct))


def normalise(batch: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """uint8 (N, C, S, S) -> float32 (x / 255 - mean) / std, channels last in memory, on the batch's device.

    `mean` and `std` are by channel, of values in 0..1.
    """
    scale = 255 * torch.tensor(std, device=batch.device).view(-1, 1, 1)
    offset = 255 * torch.tensor(mean, device=batch.device).view(-1, 1, 1)
    values = batch.to(torch.float32).sub_(offset).div_(scale)
    return values.contiguous(memory_format=torch.channels_last)  # last: it takes a third of the time of first


def sample_seed(seed: int, epoch: int, uri: str) -> int:
    """A seed in 0..2**63-1 for one image in one epoch of a run: the same on every machine and in every process."""
    digest = hashlib.sha256(f"{seed}|{epoch}|{uri}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def augment(
    image: torch.Tensor,
    *,
    seed: int,
    policy: AugmentPolicy = "none",
    auto: Auto = "none",
    magnitude: int = 9,
    crop_scale: float = 1.0,
    shift: float = 0.0,
    fill: Fill = "reflect",
    brightness: float = 0.0,
    contrast: float = 0.0,
) -> torch.Tensor:
    """Vary a uint8 image (C, S, S) at random by `seed`; returns a uint8 image (C, S, S) and leaves the given one be.

    policy: `flip` mirrors left-right, `dihedral` picks one of the square's eight flips and quarter turns.
    auto: timm's RandAugment at `magnitude` in 0..10, or torchvision's TrivialAugmentWide.
    crop_scale: the least share of the area that a random crop, resized to S again, keeps; 1 = no crop.
    shift: largest translation by axis, a share of S up to 0.5; the border mirrors (`reflect`) or comes round (`wrap`).
    brightness, contrast: the factor is uniform in 1 - strength to 1 + strength, contrast about the image's mean value.
    Every choice is drawn whether used or not, so that one option never alters what another does.
    """
    generator = torch.Generator().manual_seed(seed)
    mirror, turn_over, transpose, *rest = torch.rand(7, generator=generator).tolist()
    down, right, brighten, sharpen = (2 * draw - 1 for draw in rest)
    if crop_scale < 1:
        image = _crop(image, crop_scale, *torch.rand(4, generator=generator).tolist())
    if auto != "none":
        image = automatic(image, auto, magnitude, seed)
    if shift:
        reach = shift * image.shape[-1]
        image = _shift(image, round(down * reach), round(right * reach), fill)
    if brightness or contrast:
        image = _adjust(image, 1 + brightness * brighten, 1 + contrast * sharpen)
    if policy != "none" and mirror < 0.5:
        image = F.horizontal_flip(image)
    if policy == "dihedral" and turn_over < 0.5:
        image = F.vertical_flip(image)
    if policy == "dihedral" and transpose < 0.5:
        image = image.mT
    return image


def _crop(image: torch.Tensor, least: float, area: float, ratio: float, down: float, right: float) -> torch.Tensor:
    """A crop of a share `least` to 1 of the area, its sides' ratio from 3:4 to 4:3, by four draws in 0..1."""
    size = image.shape[-1]
    side = size * math.sqrt(least + (1 - least) * area)
    stretch = math.sqrt(math.exp((2 * ratio - 1) * math.log(4 / 3)))
    height, width = min(size, max(1, round(side / stretch))), min(size, max(1, round(side * stretch)))
    top, left = round(down * (size - height)), round(right * (size - width))
    cropped: torch.Tensor = F.resized_crop(image, top, left, height, width, [size, size], antialias=True)
    return cropped


def _shift(image: torch.Tensor, down: int, right: int, fill: Fill) -> torch.Tensor:
    if fill == "wrap":
        return torch.roll(image, (down, right), (1, 2))
    return _mirror_in(_mirror_in(image, down, dim=1), right, dim=2)


def _mirror_in(image: torch.Tensor, shift: int, dim: int) -> torch.Tensor:
    """Move along one axis and mirror at the edge, which itself is not doubled: half the time of a reflecting pad."""
    size = image.shape[dim]
    if shift > 0:
        return torch.cat([image.narrow(dim, 1, shift).flip(dim), image.narrow(dim, 0, size - shift)], dim)
    if shift < 0:
        return torch.cat(
            [image.narrow(dim, -shift, size + shift), image.narrow(dim, size - 1 + shift, -shift).flip(dim)], dim
        )
    return image


def _adjust(image: torch.Tensor, brightness: float, contrast: float) -> torch.Tensor:
    """Both in one pass, a third of the time of torchvision's two; the mean is of integers, so exact on any machine."""
    mean = int(image.sum(dtype=torch.int64)) / image.numel()
    offset = mean * brightness * (1 - contrast)
    values = image.to(torch.float32).mul_(brightness * contrast).add_(offset + 0.5)
    return values.clamp_(0, 255).to(torch.uint8)
