"""The copper of a faultless crop: parallel traces with bends, vias, rows of pads and empty strips."""

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from glint.vision.boards.lots import Lot

Floats = NDArray[np.float64]

_REACH = 0.9  # lanes further than this from the centre cannot be seen, however the crop is turned
_WIDE = (0.20, 0.26)  # supply traces and pads are as wide in every lot: room for a pinhole
_EMPTY = (0.02, 0.10)  # with the gaps on both its sides, room for a spurious blob
_ANGLES = np.linspace(0, 2 * np.pi, 20, endpoint=False)
CIRCLE: Floats = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)  # points (20, 2) on the unit circle
_SQUARE = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])


@dataclass(frozen=True)
class Trace:
    """A strip of copper along `points` (n, 2), in picture widths from the top left corner, x before y."""

    points: Floats
    width: float


@dataclass(frozen=True)
class Pad:
    """A plated land: its outline (n, 2) and, where it is drilled, the hole's radius around the centre."""

    outline: Floats
    center: Floats
    drill: float


@dataclass(frozen=True)
class Layout:
    """What is on a faultless crop; `trace_width` and `gap` are those of its board."""

    traces: list[Trace]
    pads: list[Pad]
    trace_width: float
    gap: float


class Layers(NamedTuple):
    """What is where on a crop, as greyscale pictures of one size: 255 where present."""

    copper: Image.Image
    pads: Image.Image
    drills: Image.Image
    damage: Image.Image
    """Where a defect has added or removed copper."""


def random_layout(rng: np.random.Generator, lot: Lot, scale: float) -> Layout:
    """Lay lanes of copper side by side along a common path; `scale` is the board's own factor on all widths."""
    width, gap = lot.trace_width * scale, lot.gap * scale
    layout = Layout([], [], width, gap)
    points, sideways = _random_path(rng)
    order = rng.permutation(["trace"] * int(rng.integers(2, 4)) + ["wide", "empty"])
    kinds = np.tile(order, 5).tolist()
    ranges = {"trace": (width, width), "wide": _WIDE, "empty": _EMPTY}
    lane_widths = np.array([rng.uniform(*ranges[kind]) for kind in kinds])
    offsets = np.cumsum(lane_widths + gap) - lane_widths / 2
    offsets += rng.uniform(-0.3, 0.3) - offsets[kinds.index("wide", 2 * len(order))]
    for kind, offset, lane_width in zip(kinds, offsets.tolist(), lane_widths.tolist(), strict=True):
        if abs(offset) < _REACH:
            _add_lane(rng, layout, kind, points + offset * sideways, lane_width)
    return layout


def draw_layout(layout: Layout, side: int) -> Layers:
    """Paint a faultless crop of `side` pixels."""
    layers = Layers(*(Image.new("L", (side, side)) for _ in range(4)))
    copper_brush, pad_brush, drill_brush = map(ImageDraw.Draw, layers[:3])
    for trace in layout.traces:
        copper_brush.line(pixels(trace.points, side), fill=255, width=round(trace.width * side), joint="curve")
    for pad in layout.pads:
        for brush in (copper_brush, pad_brush):
            brush.polygon(pixels(pad.outline, side), fill=255)
        if pad.drill:
            hole = pixels(pad.center + pad.drill * CIRCLE, side)
            copper_brush.polygon(hole, fill=0)
            drill_brush.polygon(hole, fill=255)
    return layers


def pixels(points: Floats, side: int) -> list[float]:
    """Scale points (n, 2) in picture widths to the pixel coordinates that Pillow takes: x0, y0, x1, y1 and so on."""
    flat: list[float] = (points * side).ravel().tolist()
    return flat


def rotation(angle: float) -> Floats:
    """The matrix (2, 2) that turns points (n, 2), multiplied from the right, by an angle in radians."""
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def _random_path(rng: np.random.Generator) -> tuple[Floats, Floats]:
    """The line that all lanes follow, at any multiple of 45 degrees, with up to two such bends.

    Returns its points (n, 2) and by how much a lane at distance 1 to the side is off each of them (n, 2).
    """
    headings = np.array([0.0, rng.choice([-1, 1]) * np.pi / 4, 0.0])[: rng.integers(1, 4)]
    steps = np.stack([np.cos(headings), np.sin(headings)], axis=1)
    knees = [np.array([rng.uniform(-0.45, 0.25), 0.0])]
    if len(headings) == 3:
        knees.append(knees[0] + rng.uniform(0.35, 0.6) * steps[1])
    inner = knees[: len(headings) - 1]
    points = np.array([knees[0] - 1.6 * steps[0], *inner, knees[-1] + 1.8 * steps[-1]])
    turned = np.concatenate([headings[:1], (headings[:-1] + headings[1:]) / 2, headings[-1:]])
    mitre = np.cos(np.concatenate([[0.0], np.diff(headings) / 2, [0.0]]))
    sideways = np.stack([-np.sin(turned), np.cos(turned)], axis=1) / mitre[:, None]
    turn = rotation(rng.integers(0, 8) * np.pi / 4)
    return points @ turn + 0.5, sideways @ turn


def _add_lane(rng: np.random.Generator, layout: Layout, kind: str, points: Floats, lane_width: float) -> None:
    chance = rng.random()
    if kind == "wide" and chance < 0.25:
        _add_pads(rng, layout, points, lane_width)
    elif kind == "trace" and chance < 0.3:
        _add_cut_trace(rng, layout, points)
    elif kind != "empty":
        layout.traces.append(Trace(points, lane_width))


def _add_cut_trace(rng: np.random.Generator, layout: Layout, points: Floats) -> None:
    """A trace that goes down through a via and, somewhat later, comes up through another or never does."""
    width, length = layout.trace_width, _stations(points)[-1]
    down = rng.uniform(0.3, 0.7) * length
    up = down + rng.uniform(0.25, 0.6)
    pieces = [_cut(points, 0, down)] + ([_cut(points, up, length)] if rng.random() < 0.7 else [])
    radius = width / 2 + 0.35 * layout.gap
    for piece, end in zip(pieces, (-1, 0), strict=False):
        layout.traces.append(Trace(piece, width))
        layout.pads.append(Pad(piece[end] + radius * CIRCLE, piece[end], radius * rng.uniform(0.4, 0.5)))


def _add_pads(rng: np.random.Generator, layout: Layout, points: Floats, lane_width: float) -> None:
    """A row of lands of one kind along a lane, joined by a trace or standing free."""
    radius = lane_width / 2
    pitch = lane_width + layout.gap * rng.uniform(1.0, 2.0)
    joined, square, drilled = rng.random(3) < (0.5, 0.5, 0.3)
    if joined:
        layout.traces.append(Trace(points, layout.trace_width))
    first = rng.uniform(0, pitch)
    for start, end in pairwise(points):
        length = float(np.hypot(*(end - start)))
        along = (end - start) / length
        shape = _SQUARE @ rotation(np.arctan2(along[1], along[0])) if square else CIRCLE
        for station in np.arange(first, length - radius, pitch).tolist():
            center = start + station * along
            if np.abs(center - 0.5).max() < 0.5 + lane_width:
                layout.pads.append(Pad(center + radius * shape, center, radius * 0.45 if drilled else 0.0))
        first = lane_width  # the bend itself stays free of pads, for they would overlap


def _stations(points: Floats) -> Floats:
    """How far along a polyline each of its points is (n,)."""
    steps: Floats = np.hypot(*np.diff(points, axis=0).T)
    return np.concatenate([[0.0], np.cumsum(steps)])


def _cut(points: Floats, start: float, end: float) -> Floats:
    """The part of a polyline between two distances from its first point."""
    at = _stations(points)
    kept = np.concatenate([[start], at[(at > start) & (at < end)], [end]])
    return np.stack([np.interp(kept, at, points[:, axis]) for axis in (0, 1)], axis=1)
