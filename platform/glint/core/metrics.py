"""Scores of a single-label classifier, by scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support


class ClassScore(BaseModel):
    """One class: precision, recall and F1 in 0..1 (0 where undefined), support in images."""

    model_config = ConfigDict(frozen=True)

    precision: float
    recall: float
    f1: float
    support: int


class Scores(BaseModel):
    """How well predictions match the labels; rows of the confusion matrix are true classes, columns predicted ones."""

    model_config = ConfigDict(frozen=True)

    accuracy: float
    balanced_accuracy: float
    macro_f1: float
    per_class: dict[str, ClassScore]
    confusion_matrix: list[list[int]]
    classes: tuple[str, ...]
    num_images: int

    def summary(self) -> dict[str, float]:
        """The figures over all classes."""
        return {"accuracy": self.accuracy, "balanced_accuracy": self.balanced_accuracy, "macro_f1": self.macro_f1}


def classification_scores(
    targets: Sequence[int] | np.ndarray[Any, Any],
    predicted: Sequence[int] | np.ndarray[Any, Any],
    classes: tuple[str, ...],
) -> Scores:
    """Score predicted class indices (N,) against true ones (N,), N > 0.

    Averages are over the classes that occur among the targets or the predictions (macro-F1) or among the targets
    (balanced accuracy): a class that no image has or was given cannot be judged.
    """
    truth, guess = np.asarray(targets), np.asarray(predicted)
    every = list(range(len(classes)))
    precision, recall, f1, support = precision_recall_fscore_support(truth, guess, labels=every, zero_division=0)
    matrix = confusion_matrix(truth, guess, labels=every)
    judged = (matrix.sum(0) + matrix.sum(1)) > 0
    per_class = {
        name: ClassScore(precision=precision[i], recall=recall[i], f1=f1[i], support=int(support[i]))
        for i, name in enumerate(classes)
    }
    return Scores(
        accuracy=float((truth == guess).mean()),
        balanced_accuracy=float(recall[support > 0].mean()),
        macro_f1=float(f1[judged].mean()),
        per_class=per_class,
        confusion_matrix=matrix.tolist(),
        classes=classes,
        num_images=len(truth),
    )
