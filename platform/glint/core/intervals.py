"""How far a score may be luck: bootstrap intervals over groups of images that belong together.

Images of one board or lot resemble each other, so whole groups are drawn with replacement, not single images
(the cluster bootstrap: Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8).
A group enters by its counts alone, so a replicate costs one matrix product, not another pass over the images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict

Array = np.ndarray[Any, np.dtype[Any]]

NUM_REPLICATES = 1000
MIN_GROUPS = 20
"""Fewer groups than these give no interval: their spread is not known well enough."""
MIN_GROUP_IMAGES = 2
"""Images that a value of a column must stand for, on average, to be taken for a group where `group` has too few."""
BLOCK = 64
"""Replicates that are computed at once, so that memory stays small however many groups there are."""


class Interval(BaseModel):
    """The range that holds a score at the stated level of confidence."""

    model_config = ConfigDict(frozen=True)

    low: float
    high: float


class Tallies(NamedTuple):
    """For each group (G) and class (C), each a dense or sparse (G, C) array: what precision and recall are made of."""

    right: Any
    """Images of the class that were given it."""
    actual: Any
    """Images of the class."""
    given: Any
    """Images that were given the class."""


def resampling_column(columns: Mapping[str, Sequence[str | None]]) -> str | None:
    """The column to draw by: `group` where it has MIN_GROUPS values, else the finest other one that has; else None.

    A missing group is a group of its own (a manifest's null group is the image itself); a missing value of another
    column is no value. A column with fewer than MIN_GROUP_IMAGES images to a value names images, not what they belong
    to: a file name, a time, a measurement.
    """
    if "group" in columns and len(set(group_codes(columns["group"]).tolist())) >= MIN_GROUPS:
        return "group"
    sizes = {name: len(set(values) - {None}) for name, values in columns.items() if name != "group"}
    sizes = {
        name: size
        for name, size in sizes.items()
        if size * MIN_GROUP_IMAGES <= sum(value is not None for value in columns[name])
    }
    finest = max(sizes, key=lambda name: sizes[name], default=None)
    return finest if finest is not None and sizes[finest] >= MIN_GROUPS else None


def group_codes(values: Sequence[str | None], alone: bool = True) -> Array:
    """The number 0..G-1 of each image's group (N,); those without a value are each a group of their own, or all one."""
    numbers: dict[str | int | None, int] = {}
    codes = [
        numbers.setdefault(i if value is None and alone else value, len(numbers)) for i, value in enumerate(values)
    ]
    return np.array(codes, dtype=np.int64)


def group_tallies(targets: Array, predicted: Array, codes: Array, num_classes: int) -> Tallies:
    """Of class indices (N,) by group (N,), 0..G-1; sparse, for dense counts of hundreds of classes would not fit."""
    targets, predicted, codes = np.asarray(targets), np.asarray(predicted), np.asarray(codes)
    num_groups = int(codes.max()) + 1 if len(codes) else 0

    def counted(classes: Array, of: Array) -> Any:
        from scipy.sparse import coo_array  # here: what serves a model need not hold scipy

        return coo_array((np.ones(len(of)), (of, classes)), shape=(num_groups, num_classes)).tocsr()

    hit = targets == predicted
    return Tallies(counted(targets[hit], codes[hit]), counted(targets, codes), counted(predicted, codes))


def indicator_tallies(targets: Array, predicted: Array, codes: Array) -> Tallies:
    """The same for images with several labels: targets and predictions are 0/1 (N, C)."""
    truth, guess = np.asarray(targets, dtype=bool), np.asarray(predicted, dtype=bool)
    sums = np.zeros((3, int(codes.max()) + 1 if len(codes) else 0, truth.shape[1]))
    for total, part in zip(sums, (truth & guess, truth, guess), strict=True):
        np.add.at(total, codes, part)
    return Tallies(*sums)


def resample(num_groups: int, num_replicates: int = NUM_REPLICATES, seed: int = 0) -> Array:
    """How often each replicate drew each group (R, G), each row summing to G; the same for the same seed."""
    random = np.random.default_rng(seed)
    counts = np.empty((num_replicates, num_groups), dtype=np.uint16)
    for row in counts:
        row[:] = np.bincount(random.integers(num_groups, size=num_groups), minlength=num_groups)
    return counts


def metric_replicates(tallies: Tallies, counts: Array) -> dict[str, Array]:
    """Each score in each replicate: accuracy, balanced_accuracy, macro_f1, micro_f1 (R,); recall, precision, f1 (R, C).

    As `classification_scores` has them on the images that the replicate drew, but NaN where a class has none to
    judge it by. For images with several labels, leave accuracy be: it is micro-recall there.
    """
    right, actual, given = (drawn_sums(part, counts) for part in tallies)
    recall, precision, f1 = _ratio(right, actual), _ratio(right, given), _ratio(2 * right, actual + given)
    return {
        "accuracy": _ratio(right.sum(1), actual.sum(1)),
        "balanced_accuracy": _mean(recall),
        "macro_f1": _mean(f1),
        "micro_f1": _ratio(2 * right.sum(1), (actual + given).sum(1)),
        "recall": recall,
        "precision": precision,
        "f1": f1,
    }


def drawn_sums(by_group: Any, counts: Array) -> Array:
    """The totals (R, …) of each replicate, of numbers by group: dense or sparse (G, …); counts as from `resample`."""
    blocks = range(0, len(counts), BLOCK)
    sums = [np.asarray(counts[start : start + BLOCK].astype(np.float64) @ by_group) for start in blocks]
    return np.concatenate(sums)


def share_replicates(part: Array, whole: Array, codes: Array, counts: Array) -> Array:
    """The share of the images `whole` (N,) that are also in `part` (N,), in each replicate (R,); NaN where of none."""
    groups = counts.shape[1]
    sums = [np.bincount(codes, weights=images, minlength=groups) for images in (part & whole, whole)]
    found, among = drawn_sums(np.stack(sums, axis=1), counts).T
    return _ratio(found, among)


def interval(replicates: Array, level: float = 0.95) -> Interval | None:
    """The percentile bootstrap interval (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13).

    Replicates in which the score is undefined (NaN) do not count; None where it is in more than half of them.
    """
    defined = replicates[~np.isnan(replicates)]
    if 2 * len(defined) < len(replicates) or not len(defined):
        return None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(low=float(low), high=float(high))


def within_one_standard_error(score: float, best: float, num_images: int) -> bool:
    """Whether chance alone may part a score from the best one, both shares of the same images, 0 to 1.

    The rule of Breiman et al. (Classification and Regression Trees, 1984), with the standard error of a share.
    """
    return score >= best - math.sqrt(best * (1 - best) / num_images)


def exact_interval(right: int, total: int, level: float = 0.95) -> Interval:
    """The exact binomial interval of a share (Clopper and Pearson, 1934).

    For shares of all or none, where a bootstrap has nothing to vary and would claim certainty.
    """
    from scipy.stats import binomtest

    found = binomtest(right, total).proportion_ci(confidence_level=level, method="exact")
    return Interval(low=float(found.low), high=float(found.high))


def unseen_share(num_images: int, num_groups: int) -> float:
    """The largest share of images that may yet be what none of them was, one image of a group: exact, 97.5% sure.

    A little more than what a bootstrap makes of a single such image.
    """
    return exact_interval(0, num_groups).high * num_groups / num_images


def _ratio(part: Array, whole: Array) -> Array:
    ratio: Array = np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)
    return ratio


def _mean(values: Array) -> Array:
    """The mean over the classes that can be judged, NaN where none can."""
    return _ratio(np.nansum(values, axis=1), (~np.isnan(values)).sum(1))
