"""Where on a crop each defect can be, and how it changes the copper."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from glint.vision.boards.layout import CIRCLE, Floats, Layers, Layout, pixels, rotation

_MARGIN = 0.16  # a defect's centre keeps this distance from the picture's edge
_ROOM = 0.08  # a pinhole or a spurious blob has a disc of this radius to itself
_STEP = 0.03  # distance between the places that are tried along a trace
_BESIDE = 0.1  # a trace must look the same this far before and after a defect


Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Sites:
    """Places for one defect: points (n, 2), the copper's direction there (n, 2) and its half width (n,)."""

    points: Floats
    along: Floats
    half_widths: Floats

    def __len__(self) -> int:
        return len(self.points)

    def at(self, along: Floats, across: Floats) -> Floats:
        """The points (k, n, 2) that lie so far (k,) along the copper and so far (k, n) to its right."""
        right = self.along[:, ::-1] * [-1, 1]
        return self.points + along[:, None, None] * self.along + across[:, :, None] * right

    def are_inside(self, across: Floats) -> Mask:
        """Whether a defect so far (n,) to the right of each site's middle is well inside the picture (n,)."""
        return np.asarray((np.abs(self.at(np.zeros(1), across[None])[0] - 0.5) < 0.5 - _MARGIN).all(axis=1))

    def where(self, keep: Mask) -> "Sites":
        """The sites for which `keep` (n,) holds."""
        return Sites(self.points[keep], self.along[keep], self.half_widths[keep])


def find_sites(layout: Layout, layers: Layers) -> dict[str, Sites]:
    """The places on a faultless crop that suit each defect; none where nothing suits."""
    is_copper = np.asarray(layers.copper) > 127
    plain = _plain(_stations(layout), is_copper, layout.gap)
    at_edge = plain.where(plain.are_inside(plain.half_widths))
    bridged = plain.half_widths + layout.gap / 2
    neighbour = bridged + layout.gap / 2 + layout.trace_width / 3
    facing = plain.where(plain.are_inside(bridged) & (_copper_share(plain, is_copper, [neighbour]) == 1))
    free = ImageChops.invert(ImageChops.lighter(layers.copper, layers.drills))
    return {
        "copper": _roomy(free),
        "mousebite": at_edge,
        "open": plain.where(plain.half_widths < 0.6 * layout.trace_width),
        "pinhole": _roomy(ImageChops.subtract(layers.copper, layers.pads)),  # in a pad it would pass for a drill hole
        "short": facing,
        "spur": at_edge,
    }


def draw_defect(rng: np.random.Generator, label: str, sites: Sites, layout: Layout, layers: Layers) -> None:
    """Paint the defect `label` at one of its sites onto the layers of copper and damage."""
    outline, fill = _OUTLINES[label]
    chosen = int(rng.integers(len(sites)))
    along = sites.along[chosen]
    frame = np.array([along, [-along[1], along[0]]])
    points = sites.points[chosen] + outline(rng, float(sites.half_widths[chosen]), layout) @ frame
    before = layers.copper.copy()
    ImageDraw.Draw(layers.copper).polygon(pixels(points, before.width), fill=fill)
    layers.damage.paste(ImageChops.difference(before, layers.copper))


def _stations(layout: Layout) -> Sites:
    """Points along all traces, each in both directions, so that either side is once on the right."""
    segments = [(*ends, trace.width / 2) for trace in layout.traces for ends in pairwise(trace.points)]
    starts = np.array([start for start, _, _ in segments]).reshape(-1, 2)
    ends = np.array([end for _, end, _ in segments]).reshape(-1, 2)
    half_widths = np.array([half_width for _, _, half_width in segments])
    lengths = np.maximum(np.hypot(*(ends - starts).T), 1e-9)
    along = (ends - starts) / lengths[:, None]
    steps = np.arange(_BESIDE, 4, _STEP)
    points = starts[:, None] + steps[:, None] * along[:, None]
    inside = (np.abs(points - 0.5) < 0.5 - _MARGIN).all(axis=2)
    segment, step = np.nonzero(inside & (steps < lengths[:, None] - _BESIDE))
    points, along = np.tile(points[segment, step], (2, 1)), along[segment]
    return Sites(points, np.concatenate([along, -along]), np.tile(half_widths[segment], 2))


def _plain(sites: Sites, is_copper: Mask, gap: float) -> Sites:
    """The sites at which nothing but a straight trace is near: no via, pad or bend on it or beside it."""
    beside = [side * (sites.half_widths + part * gap) for side in (1, -1) for part in (0.2, 0.75)]
    on_trace = _copper_share(sites, is_copper, [np.zeros(len(sites))]) == 1
    return sites.where(on_trace & (_copper_share(sites, is_copper, beside) == 0))


def _copper_share(sites: Sites, is_copper: Mask, across: list[Floats]) -> Floats:
    """The share (n,) of copper, from 0 to 1, at these distances to each site's right, from before it to after it."""
    along = np.repeat(np.linspace(-_BESIDE, _BESIDE, 5), len(across))
    side = len(is_copper)
    spots = np.clip((sites.at(along, np.array(across * 5)) * side).astype(int), 0, side - 1)
    share: Floats = is_copper[spots[..., 1], spots[..., 0]].mean(axis=0)
    return share


def _roomy(image: Image.Image) -> Sites:
    """The points of `image` that have only white around them."""
    small = image.reduce(max(1, image.width // 64))
    border = round(_MARGIN * small.width)
    square = small.filter(ImageFilter.BoxBlur(round(0.7 * _ROOM * small.width)))  # it fits in the disc, and is quick
    rows, columns = np.nonzero(np.asarray(square)[border:-border, border:-border] == 255)
    points = (np.stack([columns, rows], axis=1) + border + 0.5) / small.width
    around = ((points[:, None] + _ROOM * CIRCLE[::2]) * small.width).astype(int)
    points = points[(np.asarray(small)[around[..., 1], around[..., 0]] == 255).all(axis=1)]
    return Sites(points, np.tile([1.0, 0.0], (len(points), 1)), np.zeros(len(points)))


# The outlines of the defects, (n, 2): along the copper, then across it, from its middle to its right.


def _break(rng: np.random.Generator, half_width: float, layout: Layout) -> Floats:
    reach = half_width + 0.2 * layout.gap
    across = np.linspace(-reach, reach, 5)
    ragged = rng.uniform(-0.01, 0.01, (2, 5)) + rng.uniform(-0.25, 0.25) * across
    half_length = rng.uniform(0.045, 0.065)
    sides = [np.stack([sign * half_length + ragged[row], across], axis=1) for row, sign in enumerate((-1, 1))]
    return np.concatenate([sides[0], sides[1][::-1]])


def _bridge(rng: np.random.Generator, half_width: float, layout: Layout) -> Floats:
    across = np.linspace(0.5 * half_width, half_width + layout.gap + 0.4 * layout.trace_width, 5)
    middle = rng.uniform(-0.03, 0.03) * np.linspace(-1, 1, 5)
    half = rng.uniform(0.028, 0.042) + rng.uniform(-0.005, 0.005, (2, 5))
    left, right = np.stack([middle - half[0], across], axis=1), np.stack([middle + half[1], across], axis=1)
    return np.concatenate([left, right[::-1]])


def _bite(rng: np.random.Generator, half_width: float, layout: Layout) -> Floats:
    depth = min(rng.uniform(0.06, 0.085), 0.68 * 2 * half_width)
    outline = _blob(rng) * [rng.uniform(0.05, 0.065), depth]
    return outline + [0.0, half_width]


def _finger(rng: np.random.Generator, half_width: float, layout: Layout) -> Floats:
    length = rng.uniform(0.55, 0.65) * layout.gap
    base, tip = rng.uniform(0.042, 0.054), rng.uniform(0.026, 0.036)
    lean = rng.uniform(-0.015, 0.015)
    profile = np.array([[-base, -0.3], [-base, 0.0], [-tip, 0.9], [0.0, 1.0], [tip, 0.9], [base, 0.0], [base, -0.3]])
    return np.stack([profile[:, 0] + lean * profile[:, 1], half_width + length * profile[:, 1]], axis=1)


def _spot(rng: np.random.Generator, half_width: float, layout: Layout) -> Floats:
    radii = rng.uniform(0.044, 0.058) * np.array([1.0, rng.uniform(0.8, 1.0)])
    spot: Floats = _blob(rng) * radii @ rotation(rng.uniform(0, np.pi))
    return spot


def _blob(rng: np.random.Generator) -> Floats:
    """A ragged circle of radius 1."""
    return CIRCLE * rng.uniform(0.85, 1.12, (len(CIRCLE), 1))


_Outline = Callable[[np.random.Generator, float, Layout], Floats]

_OUTLINES: dict[str, tuple[_Outline, int]] = {
    "copper": (_spot, 255),
    "mousebite": (_bite, 0),
    "open": (_break, 0),
    "pinhole": (_spot, 0),
    "short": (_bridge, 255),
    "spur": (_finger, 255),
}
