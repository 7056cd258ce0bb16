"""Results by slice: the images of one lot, camera or whatever column the manifest has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from glint.core.bootstrap import Bootstrap
from glint.core.intervals import Interval

Array = np.ndarray[Any, np.dtype[Any]]

MAX_VALUES = 30
"""A column with more values is no way to slice: it is unique or continuous, or its slices would be too small."""


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


def slices(columns: Mapping[str, Sequence[str | None]], correct: Array, drawn: Bootstrap | None) -> Slices:
    """Accuracy on each value of each column with 2 to MAX_VALUES of them, the worst first.

    columns: the values by image; correct (N,): whether the image was judged rightly. A slice has an interval where
    enough groups of `drawn` have images in it.
    """
    reasons: dict[str, str | None] = {}
    for name, values in columns.items():
        twin = next((other for other in reasons if columns[other] == values), None)
        reasons[name] = f"the same as {twin}" if twin else _reason_to_leave_out(values)
    return Slices(
        columns={name: _slices(columns[name], correct, drawn) for name, reason in reasons.items() if not reason},
        left_out={name: reason for name, reason in reasons.items() if reason},
    )


def _slices(values: Sequence[str | None], correct: Array, drawn: Bootstrap | None) -> tuple[Slice, ...]:
    found = []
    for value in dict.fromkeys(values):
        within = np.array([own == value for own in values])
        found.append(
            Slice(
                value=value,
                num_images=int(within.sum()),
                accuracy=float(correct[within].mean()),
                interval=drawn.share(correct, within) if drawn else None,
            )
        )
    return tuple(sorted(found, key=lambda one: (one.accuracy, one.value is None, one.value or "")))


def _reason_to_leave_out(values: Sequence[str | None]) -> str | None:
    number = len(set(values))
    if number < 2:
        return "the same for every image"
    return f"{number:,} values, more than {MAX_VALUES}" if number > MAX_VALUES else None
