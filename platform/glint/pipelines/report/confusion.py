"""The confusion matrix: right cells blue, wrong ones orange, the stronger the larger the share of the row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from glint.pipelines.report.content import percent
from glint.pipelines.report.drawing import (
    CARD,
    INK,
    MUTED,
    PAGE,
    RIGHT,
    WRONG,
    Picture,
    ems,
    new_figure,
    panel,
    shortened,
    to_svg,
    write,
)

MAX_CLASSES_WITH_TEXT = 30
MAX_CLASSES_NAMED = 100
LIGHT_TEXT_FROM = 0.8
"""Opacity of a cell from which white text reads better than the ink of a light page."""


@dataclass(frozen=True)
class ConfusionPicture(Picture):
    """How much of it could be told in writing."""

    named: bool
    """Whether rows and columns carry the names of their classes."""
    written: bool
    """Whether cells carry their figures."""


@dataclass(frozen=True)
class _Layout:
    """Sizes in pixels. The matrix has its names above and to the left, slanted where a column is too narrow."""

    num_classes: int
    cell: float
    font: float
    longest: float
    """The widest name."""

    @property
    def side(self) -> float:
        return self.num_classes * self.cell

    @property
    def slant(self) -> int:
        """Degrees."""
        return 45 if self.longest > self.cell - 8 else 0

    @property
    def left(self) -> float:
        return self.longest + 48

    @property
    def top(self) -> float:
        return 44 + (self.longest * 0.71 if self.slant else self.font)

    @property
    def width(self) -> float:
        """Includes room for the last column's slanted name, which reaches beyond the matrix."""
        return self.left + self.side + (self.longest * 0.71 if self.slant else 0)


def confusion_picture(classes: Sequence[str], matrix: Sequence[Sequence[int]]) -> ConfusionPicture:
    """Draw a matrix of counts (rows = true classes, columns = predicted ones).

    Up to 30 classes, each cell has its count and its share of the row; up to 100, rows and columns have names.
    """
    counts = np.asarray(matrix)
    names = [shortened(name) for name in classes] if len(classes) <= MAX_CLASSES_NAMED else []
    layout = _layout(len(classes), names)
    figure, axes = _canvas(layout)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.add_patch(Rectangle((0, 0), layout.side, layout.side, facecolor=CARD, zorder=-1))
    axes.imshow(_colours(shares), extent=(0.0, layout.side, layout.side, 0.0), interpolation="none", aspect="auto")
    _draw_gaps(axes, layout)
    _draw_names(axes, layout, names)
    written = len(classes) <= MAX_CLASSES_WITH_TEXT
    if written:
        _draw_figures(axes, layout, counts, shares)
    return ConfusionPicture(to_svg(figure, "confusion matrix"), round(layout.width), bool(names), written)


def _layout(num_classes: int, names: list[str]) -> _Layout:
    written = num_classes <= MAX_CLASSES_WITH_TEXT
    cell = min(84.0, max(32.0, 760 / num_classes)) if written else 900 / num_classes
    font = min(13.0, max(cell * 0.34, 7.0))
    return _Layout(num_classes, cell, font, longest=max((ems(name) for name in names), default=0.0) * font)


def _canvas(layout: _Layout) -> tuple[Figure, Axes]:
    """Axes whose data coordinates are pixels, from the matrix's upper left corner to the right and down."""
    height = layout.top + layout.side
    figure = new_figure(layout.width, height)
    return figure, panel(
        figure,
        (0, 0, layout.width, height),
        (-layout.left, layout.width - layout.left),
        (layout.side, -layout.top),
    )


def _colours(shares: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """RGBA (C, C, 4); the opacity is the root of the share, so that 2 % can be told from none."""
    right = np.eye(len(shares), dtype=bool)[..., None]
    colours = np.where(right, to_rgb(RIGHT), to_rgb(WRONG))
    return np.concatenate([colours, np.sqrt(shares)[..., None]], axis=2)


def _draw_gaps(axes: Axes, layout: _Layout) -> None:
    edges = np.arange(layout.num_classes + 1) * layout.cell
    width = 2.0 if layout.cell >= 24 else layout.cell / 16
    axes.hlines(edges, 0, layout.side, colors=PAGE, linewidths=width)
    axes.vlines(edges, 0, layout.side, colors=PAGE, linewidths=width)


def _draw_names(axes: Axes, layout: _Layout, names: list[str]) -> None:
    style: dict[str, Any] = {"size": layout.font, "color": INK, "rotation_mode": "anchor"}
    aligned: dict[str, Any] = {"ha": "left", "va": "baseline"} if layout.slant else {"ha": "center", "va": "baseline"}
    for i, name in enumerate(names):
        middle = (i + 0.5) * layout.cell
        write(axes, -8, middle, name, ha="right", va="center_baseline", **style)
        write(axes, middle, -8, name, rotation=layout.slant, **aligned, **style)
    title: dict[str, Any] = {"size": 12, "color": MUTED, "ha": "center", "rotation_mode": "anchor"}
    write(axes, layout.side / 2, 14 - layout.top, "taken for", va="baseline", **title)
    write(axes, 14 - layout.left, layout.side / 2, "labelled", va="baseline", rotation=90, **title)


def _draw_figures(axes: Axes, layout: _Layout, counts: np.ndarray[Any, Any], shares: np.ndarray[Any, Any]) -> None:
    """Count and share of the row in each cell that has images."""
    large, small = min(15.0, layout.cell * 0.33), min(11.0, layout.cell * 0.27)
    for row, column in np.argwhere(counts):
        share = float(shares[row, column])
        colour = "white" if np.sqrt(share) >= LIGHT_TEXT_FROM else INK
        x, y = (column + 0.5) * layout.cell, (row + 0.5) * layout.cell
        style: dict[str, Any] = {"color": colour, "ha": "center", "va": "baseline"}
        count = f"{counts[row, column]:,}"
        write(axes, x, y, count, size=min(large, 1.5 * layout.cell / len(count)), **style)
        write(axes, x, y + 1.3 * small, percent(share, 0), size=small, **style)
