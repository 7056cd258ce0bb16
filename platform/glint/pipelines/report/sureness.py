"""How sure the model is: reliability before and after temperature scaling, and accuracy against coverage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from glint.core.calibration import NUM_BINS, Bin, Calibration
from glint.core.coverage import Coverage
from glint.pipelines.report.content import percent
from glint.pipelines.report.drawing import BAD, GOOD, INK, LINE, MUTED, Picture, new_figure, panel, to_svg, write

SIDE, ABOVE, HISTOGRAM, LEFT, GAP, BELOW = 330, 46, 64, 58, 84, 50
WIDE, HIGH = 820, 300
MIN_IN_BIN = 10
"""Answers of one confidence that are drawn pale when they are fewer: how many of them are right is mostly luck."""
STEPS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2)
"""From line to line of the coverage picture, whichever shows the curve largest."""
FIFTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
LABEL: dict[str, Any] = {"size": 12, "color": MUTED, "ha": "center", "va": "baseline"}


def reliability_picture(found: Calibration) -> Picture:
    """Bars for how often answers of one confidence are right, against the diagonal; how many there are, below."""
    sides = [("before", found.bins_before, found.ece_before), ("after", found.bins_after, found.ece_after)]
    if found.temperature == 1:
        sides = [("as served", found.bins_after, found.ece_after)]
    width = LEFT + len(sides) * SIDE + (len(sides) - 1) * GAP + 20
    figure = new_figure(width, ABOVE + SIDE + 14 + HISTOGRAM + BELOW)
    for i, (name, bins, error) in enumerate(sides):
        left = LEFT + i * (SIDE + GAP)
        _draw_bins(figure, left, bins)
        axes = panel(figure, (left, 0, SIDE, ABOVE), (0, 1), (0, 1))
        write(axes, 0, 0, name, (0, 14), size=14, color=INK, ha="left", va="baseline")
        write(axes, 1, 0, f"error {percent(error)}", (0, 14), size=13, color=MUTED, ha="right", va="baseline")
    return Picture(to_svg(figure, "reliability diagram"), round(width))


def coverage_picture(found: Coverage) -> Picture:
    """The accuracy on the surest images over their share."""
    accuracy = [point.accuracy for point in found.curve]
    step = next(step for step in STEPS if step >= (1 - min(accuracy)) / (len(FIFTHS) - 1))
    bottom = 1 - step * (len(FIFTHS) - 1)
    width, height = LEFT + WIDE + 60, 30 + HIGH + BELOW
    figure = new_figure(width, height)
    axes = panel(figure, (LEFT, 30, WIDE, HIGH), (0, 1), (bottom, 1))
    _grid(axes, FIFTHS, [1 - step * i for i in range(len(FIFTHS))], (0, 1), (bottom, 1), digits=int(step < 0.01))
    axes.plot([point.coverage for point in found.curve], accuracy, color=GOOD, linewidth=2, clip_on=False)
    for i, point in enumerate(found.stated):
        axes.plot(point.coverage, point.accuracy, "o", color=GOOD, markersize=8, clip_on=False)
        above: dict[str, Any] = {"offset": (6, 8), "ha": "left"} if i % 2 == 0 else {"offset": (-6, -18), "ha": "right"}
        write(axes, point.coverage, point.accuracy, percent(point.accuracy), size=12, color=INK, **above)
    write(axes, 0.5, bottom, "share of the images that the model decides alone, the surest first", (0, -40), **LABEL)
    _turned(axes, bottom + (1 - bottom) / 2, "of them right", 46)
    return Picture(to_svg(figure, "accuracy against coverage"), round(width))


def _draw_bins(figure: Figure, left: float, bins: Sequence[Bin]) -> None:
    axes = panel(figure, (left, ABOVE, SIDE, SIDE), (0, 1), (0, 1))
    _grid(axes, [], FIFTHS, (0, 1), (0, 1))
    for one in bins:
        inset = 0.08 / NUM_BINS
        place, width = one.low + inset, one.high - one.low - 2 * inset
        low, high = sorted((one.accuracy, one.confidence))
        seen = 1.0 if one.count >= MIN_IN_BIN else 0.3
        axes.add_patch(Rectangle((place, 0), width, low, facecolor=GOOD, alpha=0.75 * seen))
        axes.add_patch(Rectangle((place, low), width, high - low, facecolor=BAD, alpha=0.45 * seen))
        axes.plot((place, place + width), (one.accuracy, one.accuracy), color=GOOD, linewidth=3, alpha=seen)
    axes.plot((0, 1), (0, 1), color=INK, linewidth=1, dashes=(4, 3))
    _turned(axes, 0.5, "right", 44)
    below = panel(figure, (left, ABOVE + SIDE + 14, SIDE, HISTOGRAM), (0, 1), (0, max(one.count for one in bins)))
    for one in bins:
        inset = 0.08 / NUM_BINS
        below.add_patch(
            Rectangle((one.low + inset, 0), one.high - one.low - 2 * inset, one.count, facecolor=MUTED, alpha=0.6)
        )
    _grid(below, FIFTHS, [], (0, 1), (0, 1))
    write(below, 0, 0, "images", (-44, HISTOGRAM / 2), size=11, color=MUTED, ha="left", va="center_baseline")
    write(below, 0.5, 0, "confidence", (0, -38), **LABEL)


def _grid(
    axes: Axes,
    xs: Sequence[float],
    ys: Sequence[float],
    x: tuple[float, float],
    y: tuple[float, float],
    digits: int = 0,
) -> None:
    """Horizontal lines with their percentages at the left, and percentages below."""
    for value in ys:
        axes.plot(x, (value, value), color=LINE, linewidth=1, clip_on=False, zorder=0)
        text = f"{value:.{digits}%}"
        write(axes, x[0], value, text, (-8, 0), size=11, color=MUTED, ha="right", va="center_baseline")
    for value in xs:
        write(axes, value, y[0], f"{value:.0%}", (0, -18), size=11, color=MUTED, ha="center", va="baseline")


def _turned(axes: Axes, y: float, text: str, left: float) -> None:
    write(axes, 0, y, text, (-left, 0), rotation=90, rotation_mode="anchor", **LABEL)
