"""Draw one crop of a circuit board from a label, a lot, a board and a seed."""

import zlib

import numpy as np
from numpy.typing import NDArray

from glint.core.errors import GlintError
from glint.vision.boards.defects import Sites, draw_defect, find_sites
from glint.vision.boards.layout import Layers, Layout, draw_layout, random_layout
from glint.vision.boards.lots import CLASSES, Lot
from glint.vision.boards.photo import etch, photograph, random_look

_OVERSAMPLING = 2
_MIN_SIZE = 64
_MAX_ATTEMPTS = 50  # about one layout in two suits, so only an impossible lot gets there


def draw_board(label: str, lot: Lot, board: int = 0, seed: int = 0, size: int = 128) -> NDArray[np.uint8]:
    """Draw a crop of `size` pixels as uint8 RGB (size, size, 3); the same arguments always give the same pixels.

    `board` is the number of a board within its lot: its crops share colours, trace width and light. `seed` chooses
    the crop. Crops that differ in their label alone show the same place, with and without the defect.
    Raises GlintError for an unknown label or a size below 64, in which defects could not be told apart.
    """
    _check(label, size)
    layers = _draw_layers(label, lot, board, seed, size)
    look = random_look(_stream("look", lot, board), lot)
    return photograph(_stream("photo", lot, board, seed), lot, look, layers)


def draw_copper_layer(label: str, lot: Lot, board: int = 0, seed: int = 0, size: int = 128) -> NDArray[np.uint8]:
    """The copper alone of the same crop, as uint8 (size, size): 255 where there is copper, before any camera."""
    _check(label, size)
    return np.asarray(_draw_layers(label, lot, board, seed, size).copper)


def _draw_layers(label: str, lot: Lot, board: int, seed: int, size: int) -> Layers:
    layout, layers, sites = _suitable_layout(lot, board, seed, size * _OVERSAMPLING)
    if label != "good":
        draw_defect(_stream(label, lot, board, seed), label, sites[label], layout, layers)
    etched = etch(_stream("etch", lot, board, seed), layers.copper, lot.roughness)
    return Layers(*(layer.reduce(_OVERSAMPLING) for layer in layers._replace(copper=etched)))


def _suitable_layout(lot: Lot, board: int, seed: int, side: int) -> tuple[Layout, Layers, dict[str, Sites]]:
    """The first crop that could show every defect, whichever is wanted: so the layout tells nothing of the label."""
    scale = _stream("scale", lot, board).uniform(0.94, 1.06)
    for attempt in range(_MAX_ATTEMPTS):
        layout = random_layout(_stream("layout", lot, board, seed, attempt), lot, scale)
        layers = draw_layout(layout, side)
        sites = find_sites(layout, layers)
        if all(map(len, sites.values())):
            return layout, layers, sites
    raise GlintError(
        f"lot {lot.name}: trace_width {lot.trace_width} and gap {lot.gap} leave no room for every defect; "
        "about 0.08 to 0.13 of the picture's width suits both"
    )


def _stream(purpose: str, lot: Lot, *numbers: int) -> np.random.Generator:
    """Random numbers of their own for each purpose, the same on every machine and in every process."""
    return np.random.default_rng([zlib.crc32(purpose.encode()), zlib.crc32(lot.name.encode()), *numbers])


def _check(label: str, size: int) -> None:
    if label not in CLASSES:
        raise GlintError(f"draw_board: label must be one of {', '.join(CLASSES)}, got {label!r}")
    if size < _MIN_SIZE:
        raise GlintError(f"draw_board: size must be at least {_MIN_SIZE} pixels, got {size}")
