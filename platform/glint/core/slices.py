"""Results by slice: the images of one lot, camera or whatever column the manifest has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from glint.core.bootstrap import Bootstrap
from glint.core.intervals import Interval

Array = np.ndarray[Any, np.dtype[Any]]

MAX_VALUES = 30
"""Slices of a column; of one with more values, the worst of those with MIN_SLICE are told and the others counted."""
MIN_SLICE = 10
"""Images."""


class Slice(BaseModel):
    """The images with one value of a column; None = those without a value."""

    model_config = ConfigDict(frozen=True)

    value: str | None
    num_images: int
    accuracy: float
    interval: Interval | None


class Slices(BaseModel):
    """The slices of each column, by name, and why the other columns have none."""

    model_config = ConfigDict(frozen=True)

    columns: dict[str, tuple[Slice, ...]]
    left_out: dict[str, str]
    others: dict[str, int] = Field(default={}, description="values that are no slice, of columns with too many")


def slices(columns: Mapping[str, Sequence[str | None]], correct: Array, drawn: Bootstrap | None) -> Slices:
    """Accuracy on each value of each column that has several, the worst first: at most MAX_VALUES of them.

    columns: the values by image; correct (N,): whether the image was judged rightly. A slice has an interval where
    enough groups of `drawn` have images in it.
    """
    reasons: dict[str, str | None] = {}
    for name, values in columns.items():
        twin = next((other for other in reasons if columns[other] == values), None)
        reasons[name] = f"the same as {twin}" if twin else _reason_to_leave_out(values)
    told = {name: _slices(columns[name], correct, drawn) for name, reason in reasons.items() if not reason}
    others = {name: len(set(columns[name])) - len(found) for name, found in told.items()}
    return Slices(
        columns=told,
        left_out={name: reason for name, reason in reasons.items() if reason},
        others={name: number for name, number in others.items() if number},
    )


def _slices(values: Sequence[str | None], correct: Array, drawn: Bootstrap | None) -> tuple[Slice, ...]:
    places: dict[str | None, list[int]] = {}
    for place, value in enumerate(values):
        places.setdefault(value, []).append(place)
    least = MIN_SLICE if len(places) > MAX_VALUES else 1
    judged = [(float(correct[rows].mean()), value) for value, rows in places.items() if len(rows) >= least]
    worst = sorted(judged, key=lambda one: (one[0], one[1] is None, one[1] or ""))[:MAX_VALUES]
    return tuple(
        Slice(
            value=value,
            num_images=len(places[value]),
            accuracy=accuracy,
            interval=_interval(places[value], correct, drawn),
        )
        for accuracy, value in worst
    )


def _interval(rows: Sequence[int], correct: Array, drawn: Bootstrap | None) -> Interval | None:
    if drawn is None:
        return None
    within = np.zeros(len(correct), dtype=bool)
    within[list(rows)] = True
    return drawn.share(correct, within)


def _reason_to_leave_out(values: Sequence[str | None]) -> str | None:
    counts = Counter(values)
    if len(counts) < 2:
        return "the same for every image"
    if len(counts) > MAX_VALUES and max(counts.values()) < MIN_SLICE:
        return f"{len(counts):,} values, more than {MAX_VALUES}, and none of them with {MIN_SLICE} images"
    return None
