"""One set of resamples for all the figures of an evaluation: what groups allow is given an interval, the rest None."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict

from glint.core.intervals import (
    MIN_GROUPS,
    NUM_REPLICATES,
    Interval,
    Tallies,
    exact_interval,
    group_codes,
    group_tallies,
    indicator_tallies,
    interval,
    metric_replicates,
    resample,
    resampling_column,
    share_replicates,
    unseen_share,
)

Array = np.ndarray[Any, np.dtype[Any]]

MIN_JUDGED_GROUPS = 10
"""Groups that must hold images of a class or slice for its figures to have intervals."""
MIN_AVERAGED_GROUPS = 5
"""Groups that must hold each class for averages over classes to have intervals: in one of 150 resamples, a class in so
many is absent, which changes what the average is of."""


class Resampling(BaseModel):
    """What was drawn with replacement, or why nothing was."""

    model_config = ConfigDict(frozen=True)

    column: str | None
    num_groups: int
    replicates: int
    note: str | None
    """Why it is not `group`, or why there is none."""


class ClassIntervals(BaseModel):
    """Of one class; None where too few groups have images to judge it by."""

    model_config = ConfigDict(frozen=True)

    precision: Interval | None = None
    recall: Interval | None = None
    f1: Interval | None = None


class ScoreIntervals(BaseModel):
    """Of the scores of an evaluation, with their names."""

    model_config = ConfigDict(frozen=True)

    accuracy: Interval | None = None
    balanced_accuracy: Interval | None = None
    macro_f1: Interval | None = None
    micro_f1: Interval | None = None
    per_class: dict[str, ClassIntervals] = {}


class Differences(NamedTuple):
    """Intervals of differences; `recall` is by class, and `rare` are those in too few groups for averages."""

    macro_f1: Interval | None
    micro_f1: Interval | None
    recall: list[Interval | None]
    rare: list[int]


@dataclass(frozen=True)
class Bootstrap:
    """The group (N,) of each image, and how often each replicate drew each group (R, G)."""

    codes: Array
    counts: Array

    def share(self, part: Array, whole: Array | None = None) -> Interval | None:
        """Of the share of the images `whole` (N,; None = all) that are also in `part` (N,)."""
        whole = np.ones(len(self.codes), dtype=bool) if whole is None else whole
        num_groups = len(np.unique(self.codes[whole]))
        return _interval(share_replicates(part, whole, self.codes, self.counts), num_groups)

    def tallies(self, targets: Array, predicted: Array, num_classes: int) -> Tallies:
        """By group, of class indices (N,) or of 0/1 (N, C)."""
        if targets.ndim == 2:
            return indicator_tallies(targets, predicted, self.codes)
        return group_tallies(targets, predicted, self.codes, num_classes)

    def scores(self, targets: Array, predicted: Array, classes: tuple[str, ...]) -> ScoreIntervals:
        """Of every score of predicted classes, as (N,) indices or (N, C) of 0/1."""
        tallies = self.tallies(targets, predicted, len(classes))
        found = metric_replicates(tallies, self.counts)
        actual, given = (_groups_with(part) for part in (tallies.actual, tallies.given))
        either = _groups_with(tallies.actual + tallies.given)
        every = self.counts.shape[1]
        averaged = 0 if _rare(tallies) else every
        hits = (targets == predicted).all(1) if targets.ndim == 2 else targets == predicted
        return ScoreIntervals(
            accuracy=self.share(hits),
            balanced_accuracy=_interval(found["balanced_accuracy"], averaged),
            macro_f1=_interval(found["macro_f1"], averaged),
            micro_f1=_interval(found["micro_f1"], every) if targets.ndim == 2 else None,
            per_class={
                name: ClassIntervals(
                    precision=_interval(found["precision"][:, i], int(given[i])),
                    recall=_interval(found["recall"][:, i], int(actual[i])),
                    f1=_interval(found["f1"][:, i], int(either[i])),
                )
                for i, name in enumerate(classes)
            },
        )

    def difference_of_shares(self, before: Array, after: Array) -> Interval | None:
        """Of the share of images in `after` minus that in `before`, paired."""
        every = np.ones(len(self.codes), dtype=bool)
        first, second = (share_replicates(part, every, self.codes, self.counts) for part in (before, after))
        return interval(second - first)

    def allowing_for_the_unseen(self, found: Interval, whole: Array, lost: Array, gained: Array) -> Interval:
        """A paired interval of the images `whole` (N,), wider where none of them is `lost` (N,), or none `gained`.

        A bootstrap cannot draw what no image shows: two models that agree on 20 images would be equal for certain.
        """
        may_be = unseen_share(int(whole.sum()), len(np.unique(self.codes[whole])))
        low = found.low if lost.any() else max(-1.0, found.low - may_be)
        high = found.high if gained.any() else min(1.0, found.high + may_be)
        return Interval(low=low, high=high)

    def differences(self, before: Tallies, after: Tallies) -> Differences:
        """Of after minus before, paired; macro-F1 has none where a class of either is in too few groups."""
        rare = sorted({*_rare(before), *_rare(after)})
        first, second = (metric_replicates(side, self.counts) for side in (before, after))
        recalls = zip((second["recall"] - first["recall"]).T, _groups_with(before.actual), strict=True)
        return Differences(
            macro_f1=None if rare else interval(second["macro_f1"] - first["macro_f1"]),
            micro_f1=interval(second["micro_f1"] - first["micro_f1"]),
            recall=[interval(values) if groups >= MIN_JUDGED_GROUPS else None for values, groups in recalls],
            rare=rare,
        )


def bootstrap(
    columns: Mapping[str, Sequence[str | None]], num_replicates: int = NUM_REPLICATES
) -> tuple[Bootstrap | None, Resampling]:
    """Resamples over `group` or, where that has fewer than MIN_GROUPS values, over the finest column; or none.

    columns: the values by image of `group` and of the manifest's further columns. An image without a group is a group
    of its own; those without a value of another column are one, for nothing says that they don't belong together.
    """
    column = resampling_column(columns)
    num_groups = len(set(group_codes(columns["group"]).tolist())) if "group" in columns else 0
    few = f"group has {num_groups} {'value' if num_groups == 1 else 'values'}, fewer than {MIN_GROUPS}"
    if column is None:
        note = f"{few}, and no other column that puts images together has as many"
        return None, Resampling(column=None, num_groups=num_groups, replicates=0, note=note)
    codes = group_codes(columns[column], alone=column == "group")
    drawn = Bootstrap(codes, resample(int(codes.max()) + 1, num_replicates))
    said = Resampling(
        column=column,
        num_groups=drawn.counts.shape[1],
        replicates=num_replicates,
        note=None if column == "group" else few + _without_value(columns[column]),
    )
    return drawn, said


def _without_value(values: Sequence[str | None]) -> str:
    number = sum(value is None for value in values)
    return f" (the {number:,} {'image' if number == 1 else 'images'} without a value count as one)" if number else ""


def _interval(replicates: Array, num_groups: int) -> Interval | None:
    """The bootstrap's interval; the exact one over groups where every replicate has all or none right."""
    if num_groups < MIN_JUDGED_GROUPS:
        return None
    found = interval(replicates)
    if found is not None and found.low == found.high and found.low in (0, 1):
        return exact_interval(int(found.low) * num_groups, num_groups)
    return found


def _rare(tallies: Tallies) -> list[int]:
    """The classes that images have or were given, but in fewer than MIN_AVERAGED_GROUPS groups."""
    groups = _groups_with(tallies.actual + tallies.given)
    return [int(label) for label in np.flatnonzero((groups > 0) & (groups < MIN_AVERAGED_GROUPS))]


def _groups_with(counts: Any) -> Array:
    """How many groups (rows) have any image, by class (columns)."""
    groups: Array = np.asarray((counts > 0).sum(axis=0)).ravel()
    return groups
