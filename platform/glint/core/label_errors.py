"""Labels that are probably wrong, by confident learning (Northcutt, Jiang and Chuang, JAIR 70, 2021).

An image counts towards a class when its probability of that class is at least the mean probability that the images
labelled so have of it. An image that counts towards another class than its own lies off the diagonal of the confident
joint; it is suspected unless its own class is the likelier one for all that, as where the other one's threshold is low.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Suspect:
    """One image whose label is doubted: `given` and `suggested` are class indices.

    `score` is the normalised margin in 0..1, (p(given) - p(suggested) + 1) / 2: the lower, the likelier a wrong label.
    """

    index: int
    given: int
    suggested: int
    score: float


def confident_classes(probabilities: Array, targets: Array) -> Array:
    """The class that each image counts towards (N,), -1 for none: the most probable of those above their threshold.

    Thresholds are the mean self-confidence of each class; a class without images has none and is never suggested.
    """
    num_images, num_classes = probabilities.shape
    support = np.bincount(targets, minlength=num_classes)
    own = np.bincount(targets, weights=probabilities[np.arange(num_images), targets], minlength=num_classes)
    thresholds = np.divide(own, support, out=np.full(num_classes, np.inf), where=support > 0)
    # Sums of float32 may end just above the values that they are the mean of.
    confident = np.where(probabilities >= thresholds - 1e-6, probabilities, -1.0)
    return np.where(confident.max(1) < 0, -1, confident.argmax(1))


def label_errors(probabilities: Array, targets: Array) -> list[Suspect]:
    """The suspected images, the most doubtful first.

    probabilities (N, C) that the model gives images that it did not learn from; targets (N,) class indices.
    """
    probabilities, targets = np.asarray(probabilities, dtype=np.float64), np.asarray(targets)
    towards, every = confident_classes(probabilities, targets), np.arange(len(targets))
    own, other = probabilities[every, targets], probabilities[every, towards]
    suspected = np.flatnonzero((towards >= 0) & (other > own))
    scores = (own - other)[suspected] / 2 + 0.5
    order = np.argsort(scores, kind="stable")
    return [
        Suspect(int(i), int(targets[i]), int(towards[i]), float(score))
        for i, score in zip(suspected[order], scores[order], strict=True)
    ]


def presence_errors(probabilities: Array, targets: Array) -> list[tuple[int, Suspect]]:
    """For several labels an image: (class, suspect), each class's presence (1) or absence (0) judged by itself.

    probabilities (N, C), targets (N, C) of 0/1; the most doubtful first.
    """
    found = [
        (label, suspect)
        for label in range(probabilities.shape[1])
        for suspect in label_errors(_absence_and_presence(probabilities[:, label]), targets[:, label].astype(np.int64))
    ]
    return sorted(found, key=lambda pair: pair[1].score)


def _absence_and_presence(probabilities: Array) -> Array:
    present = np.asarray(probabilities, dtype=np.float64)
    return np.stack([1 - present, present], axis=1)
