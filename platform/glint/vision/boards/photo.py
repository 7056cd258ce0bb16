"""The camera's view of a crop: solder mask, plating, drill holes, light, blur and noise."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from glint.vision.boards.layout import Layers
from glint.vision.boards.lots import Color, Lot

Pixels = NDArray[np.float32]

_HOLE_COLOR: Color = (228, 240, 248)  # the board lies on a light table, as in optical inspection
_RAW_COPPER: Color = (240, 112, 56)
_SCORCHED: Color = (12, 9, 8)
_EXPOSURE = np.float32(0.85)  # how far a defect has the colour of its material, and not that of the board around it


@dataclass(frozen=True)
class Look:
    """What all crops of one board have in common: its colours and the direction of the light in radians."""

    mask: Pixels  # the colours are (3, 1, 1), from 0 to 255
    trace: Pixels
    finish: Pixels
    light: float


def random_look(rng: np.random.Generator, lot: Lot) -> Look:
    """The look of one board, which differs a little from the lot's."""
    mask, finish = (_rgb(color) * _jitter(rng) for color in (lot.mask_color, lot.finish_color))
    contrast = lot.contrast * rng.uniform(0.9, 1.1)
    trace = (mask + contrast * (finish - mask)).astype(np.float32)
    return Look(mask, trace, finish, rng.uniform(0, 2 * np.pi))


def etch(rng: np.random.Generator, copper: Image.Image, roughness: float) -> Image.Image:
    """Round the corners and fray the edges of drawn copper, as etching does."""
    side = copper.width
    soft = np.asarray(copper.filter(ImageFilter.BoxBlur(0.008 * side)), np.float32) / 255
    fraying = np.clip(roughness * _mottle(rng, side, side // 5), -0.4, 0.4)
    edge = np.clip((soft + fraying - 0.5) * 4 + 0.5, 0, 1)
    return Image.fromarray((edge * 255).astype(np.uint8))


def photograph(rng: np.random.Generator, lot: Lot, look: Look, layers: Layers) -> NDArray[np.uint8]:
    """Take the picture: layers of `size` pixels in, uint8 RGB (size, size, 3) out.

    Copper that a defect adds lies bare, without mask or plating; where one has taken copper away, the laminate is
    scorched.
    """
    metal, plated, holes, damage = (np.asarray(layer, np.float32) / np.float32(255) for layer in layers)
    surface: Pixels = look.mask + metal * (look.trace - look.mask)
    surface += plated * metal * (look.finish - surface)
    surface += _EXPOSURE * damage * metal * (_rgb(_RAW_COPPER) - surface)
    surface += _EXPOSURE * damage * (1 - metal) * (_rgb(_SCORCHED) - surface)
    surface *= _light(rng, lot, look, metal)
    surface += holes * (_rgb(_HOLE_COLOR) - surface)
    return _expose(rng, lot, surface)


def _light(rng: np.random.Generator, lot: Lot, look: Look, metal: Pixels) -> Pixels:
    """Brightness (size, size): the lamp's fall-off, uneven resin, and copper edges that catch the light."""
    side = len(metal)
    ramp = np.linspace(-1, 1, side, dtype=np.float32)
    slope = lot.shade * (np.float32(np.cos(look.light)) * ramp + np.float32(np.sin(look.light)) * ramp[:, None])
    relief = metal - np.roll(metal, (side // 64, side // 64), (0, 1))
    brightness: Pixels = 1 + 0.7 * slope + 0.03 * _mottle(rng, side, 8) + 0.12 * relief
    return brightness


def _expose(rng: np.random.Generator, lot: Lot, surface: Pixels) -> NDArray[np.uint8]:
    """Blur by the lens, then add the sensor's noise: (3, size, size) in, (size, size, 3) out."""
    side = surface.shape[1]
    rows_first = np.ascontiguousarray(np.moveaxis(_to_bytes(surface), 0, 2))
    seen = Image.fromarray(rows_first).filter(ImageFilter.GaussianBlur(lot.blur * side))
    exposure = rng.uniform(0.85, 1.15)
    grain = lot.noise * rng.standard_normal((side, side, 1), np.float32)
    return _to_bytes(np.asarray(seen) * np.float32(exposure) + grain)


def _to_bytes(values: Pixels) -> NDArray[np.uint8]:
    return np.clip(values, 0, 255).astype(np.uint8)


def _mottle(rng: np.random.Generator, side: int, num_cells: int) -> Pixels:
    """Smooth noise (side, side) of standard deviation about 1, with `num_cells` spots across the picture."""
    coarse = Image.fromarray(rng.standard_normal((num_cells, num_cells), np.float32))
    return np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), np.float32)


def _rgb(color: Color) -> Pixels:
    return np.array(color, np.float32)[:, None, None]  # channels first: numpy multiplies whole planes much faster


def _jitter(rng: np.random.Generator) -> Pixels:
    return rng.uniform(0.88, 1.12, (3, 1, 1)).astype(np.float32)
