"""Accuracy against coverage: how right a model is on the images that it is surest of.

Where a person looks at what the model doubts, this is the curve to choose by (El-Yaniv and Wiener, On the Foundations
of Noise-free Selective Classification, 2010; the area under the risk: Geifman and El-Yaniv, 2017).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

Array = np.ndarray[Any, np.dtype[Any]]

STATED = (0.8, 0.9, 0.95, 1.0)
NUM_POINTS = 100
MIN_IMAGES = 20
"""Images from which the curve starts: the accuracy on fewer is mostly luck."""


class CoveragePoint(BaseModel):
    """The accuracy on the share `coverage` of the images whose confidence is at least `confidence`."""

    model_config = ConfigDict(frozen=True)

    coverage: float
    accuracy: float
    confidence: float


class Coverage(BaseModel):
    """The curve, some points of it that people ask for, and the area under the risk (1 - accuracy), lower is better."""

    model_config = ConfigDict(frozen=True)

    curve: tuple[CoveragePoint, ...]
    stated: tuple[CoveragePoint, ...]
    aurc: float


def coverage(confidence: Array, correct: Array) -> Coverage:
    """The curve for answers with their confidence (N,) and whether they are right (N,), N > 0.

    Answers of one confidence come in together: their order would be chance.
    """
    accuracy, confidence = _accuracy_of_surest(np.asarray(confidence, dtype=np.float64), np.asarray(correct))
    total = len(accuracy)

    def point(count: int) -> CoveragePoint:
        return CoveragePoint(
            coverage=count / total, accuracy=float(accuracy[count - 1]), confidence=float(confidence[count - 1])
        )

    counts = np.unique(np.ceil(np.linspace(1 / NUM_POINTS, 1, NUM_POINTS) * total - 1e-9).astype(int))
    counts = counts[counts >= min(MIN_IMAGES, total)]
    stated = [point(max(1, round(share * total))) for share in STATED]
    return Coverage(curve=tuple(map(point, counts.tolist())), stated=tuple(stated), aurc=float((1 - accuracy).mean()))


def _accuracy_of_surest(confidence: Array, correct: Array) -> tuple[Array, Array]:
    """The accuracy on the 1, 2, …, N surest images, and the confidence of the last of them."""
    order = np.argsort(-confidence, kind="stable")
    _, same, counts = np.unique(-confidence[order], return_inverse=True, return_counts=True)
    right = np.bincount(same, weights=correct[order]) / counts
    return right[same].cumsum() / np.arange(1, len(order) + 1), confidence[order]
