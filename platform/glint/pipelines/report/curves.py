"""ROC and precision-recall curves, one class against the rest: a small picture for each class, or only their mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from glint.core.metrics import one_against_rest
from glint.pipelines.report.drawing import (
    GOOD,
    INK,
    LINE,
    MUTED,
    Picture,
    ems,
    new_figure,
    panel,
    shortened,
    to_svg,
    write,
)

Array = np.ndarray[Any, np.dtype[Any]]
Kind = Literal["roc", "pr"]

MAX_PANELS = 30
MIN_IMAGES = 10
"""Of a class, and of the others, that a curve takes."""
WIDTH, GAP, ABOVE, BELOW, LEFT, RIGHT = 1040, 26, 44, 34, 34, 4
NUM_POINTS = 101
AXES = {"roc": ("false alarms", "found"), "pr": ("found", "right")}
GRID = np.linspace(0, 1, NUM_POINTS)


@dataclass(frozen=True)
class Curve:
    """Values of y (NUM_POINTS,) over x in 0..1, the area under the exact curve, and what chance would give (y of x)."""

    name: str
    y: Array
    area: float
    chance: tuple[float, float]


def drawable(targets: Array, classes: Sequence[str]) -> list[str]:
    """The classes of which there are images enough for a curve, and enough that are not of them."""
    support = one_against_rest(targets, len(classes)).sum(0)
    fewest = np.minimum(support, len(targets) - support)
    return [name for name, number in zip(classes, fewest, strict=True) if number >= MIN_IMAGES]


def curves(
    kind: Kind, probabilities: Array, targets: Array, classes: Sequence[str], areas: dict[str, float | None]
) -> list[Curve]:
    """The curves of the classes that can be drawn; ROC (found over false alarms) or precision over recall."""
    truth, found = one_against_rest(targets, len(classes)), []
    for name in drawable(targets, classes):
        i, area = classes.index(name), areas[name]
        assert area is not None, "a class with images has an area"
        y = _roc(truth[:, i], probabilities[:, i]) if kind == "roc" else _precision(truth[:, i], probabilities[:, i])
        base = float(truth[:, i].mean())
        found.append(Curve(name, y, area, (0.0, 1.0) if kind == "roc" else (base, base)))
    return found


def curves_picture(kind: Kind, found: Sequence[Curve]) -> Picture | None:
    """Small pictures beside each other with the mean of all behind each; the mean alone where they are too many."""
    if not found:
        return None
    mean = Curve(
        f"mean of {len(found)} classes",
        np.mean([curve.y for curve in found], axis=0),
        float(np.mean([curve.area for curve in found])),
        tuple(np.mean([curve.chance for curve in found], axis=0)),
    )
    shown = list(found) if len(found) <= MAX_PANELS else [mean]
    columns = min(len(shown), 4 if len(shown) <= 8 else 6)
    side = min(220.0, (WIDTH - LEFT - RIGHT - GAP * (columns - 1)) / columns)
    rows = -(-len(shown) // columns)
    width = LEFT + columns * side + GAP * (columns - 1) + RIGHT
    figure = new_figure(width, rows * (ABOVE + side + BELOW))
    for i, curve in enumerate(shown):
        row, column = divmod(i, columns)
        corner = (LEFT + column * (side + GAP), ABOVE + row * (ABOVE + side + BELOW))
        _draw(figure, kind, corner, side, curve, mean if len(shown) > 1 else None, first=column == 0)
    return Picture(to_svg(figure, "ROC curves" if kind == "roc" else "precision-recall curves"), round(width))


def _draw(
    figure: Figure, kind: Kind, corner: tuple[float, float], side: float, curve: Curve, mean: Curve | None, first: bool
) -> None:
    axes = panel(figure, (*corner, side, side), (0, 1), (0, 1))
    for tick, aligned in ((0.0, "left"), (0.5, "center"), (1.0, "right")):
        axes.plot((0, 1), (tick, tick), (tick, tick), (0, 1), color=LINE, linewidth=1, clip_on=False)
        write(axes, tick, 0, f"{tick:.0%}", (0, -14), size=10, color=MUTED, ha=aligned, va="baseline")
        if first:
            write(axes, 0, tick, f"{tick:.0%}", (-6, 0), size=10, color=MUTED, ha="right", va="center_baseline")
    axes.plot((0, 1), curve.chance, color=MUTED, linewidth=1, dashes=(3, 3))
    if mean is not None:
        axes.plot(GRID, mean.y, color=MUTED, linewidth=1.2)
    axes.plot(GRID, curve.y, color=GOOD, linewidth=2, clip_on=False)
    name = shortened(curve.name)
    size = min(13.0, (side - 40) / max(ems(name), 1))
    write(axes, 0, 1, name, (0, 12), size=size, color=INK, ha="left", va="baseline")
    write(axes, 1, 1, f"{curve.area:.3f}", (0, 12), size=12, color=MUTED, ha="right", va="baseline")
    write(axes, 0.5, 0, AXES[kind][0], (0, -28), size=10, color=MUTED, ha="center", va="baseline")
    if first:
        turned: dict[str, Any] = {"rotation": 90, "rotation_mode": "anchor", "ha": "center", "va": "baseline"}
        write(axes, 0, 0.25, AXES[kind][1], (-8, 0), size=10, color=MUTED, **turned)


def _roc(truth: Array, scores: Array) -> Array:
    false_alarms, found, _ = roc_curve(truth, scores)
    return np.asarray(np.interp(GRID, false_alarms, found))


def _precision(truth: Array, scores: Array) -> Array:
    """Precision at each recall: that of the least answers which reach it."""
    precision, recall, _ = precision_recall_curve(truth, scores)
    first = np.searchsorted(recall[::-1], GRID, side="left")
    return np.asarray(precision[::-1][np.minimum(first, len(recall) - 1)])
