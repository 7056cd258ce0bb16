"""Scores of a classifier, by scikit-learn: of one label an image, and of several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from sklearn.metrics import average_precision_score, confusion_matrix, precision_recall_fscore_support, roc_auc_score

from glint.core.policy import PRESENT_FROM

Array = np.ndarray[Any, np.dtype[Any]]


class ClassScore(BaseModel):
    """One class: precision, recall and F1 in 0..1 (0 where undefined); images that have it, and that were given it."""

    model_config = ConfigDict(frozen=True)

    precision: float
    recall: float
    f1: float
    support: int
    given: int


class Scores(BaseModel):
    """How well predictions match the labels."""

    model_config = ConfigDict(frozen=True)

    task: Literal["single", "multi"] = "single"
    accuracy: float = Field(description="share of the images that are right; with several labels, in all of them")
    balanced_accuracy: float = Field(description="mean recall")
    macro_f1: float
    micro_f1: float | None = Field(default=None, description="over all labels of all images, where there are several")
    mean_average_precision: float | None = Field(default=None, description="where an image has several labels")
    per_class: dict[str, ClassScore]
    confusion_matrix: list[list[int]] = Field(
        description="rows are true classes, columns predicted ones; empty where an image has several labels"
    )
    classes: tuple[str, ...]
    num_images: int

    def summary(self) -> dict[str, float]:
        """The figures over all classes."""
        names = ("accuracy", "balanced_accuracy", "macro_f1", "micro_f1", "mean_average_precision")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


def classification_scores(
    targets: Sequence[int] | Array, predicted: Sequence[int] | Array, classes: tuple[str, ...]
) -> Scores:
    """Score predicted class indices (N,) against true ones (N,), N > 0.

    Averages are over the classes that occur among the targets or the predictions (macro-F1) or among the targets
    (balanced accuracy): a class that no image has or was given cannot be judged.
    """
    truth, guess = np.asarray(targets), np.asarray(predicted)
    every = list(range(len(classes)))
    found = precision_recall_fscore_support(truth, guess, labels=every, zero_division=0)
    matrix = confusion_matrix(truth, guess, labels=every)
    return Scores(
        accuracy=float((truth == guess).mean()),
        per_class=_per_class(found, matrix.sum(0), classes),
        confusion_matrix=matrix.tolist(),
        classes=classes,
        num_images=len(truth),
        **_averages(found, matrix.sum(0)),
    )


def multi_label_scores(targets: Array, probabilities: Array, classes: tuple[str, ...]) -> Scores:
    """Score probabilities (N, C) of several labels an image against 0/1 targets (N, C), N > 0.

    An image has the classes whose probability is at least PRESENT_FROM. Averages are over the classes that can be
    judged, as for `classification_scores`; the mean average precision is over those that some image has.
    """
    truth, guess = np.asarray(targets) > 0, np.asarray(probabilities) >= PRESENT_FROM
    found = precision_recall_fscore_support(truth, guess, average=None, zero_division=0)
    precisions = [value for value in average_precisions(targets, probabilities) if value is not None]
    micro = precision_recall_fscore_support(truth, guess, average="micro", zero_division=0)
    return Scores(
        task="multi",
        accuracy=float((truth == guess).all(1).mean()),
        micro_f1=float(micro[2]),
        mean_average_precision=float(np.mean(precisions)) if precisions else None,
        per_class=_per_class(found, guess.sum(0), classes),
        confusion_matrix=[],
        classes=classes,
        num_images=len(truth),
        **_averages(found, guess.sum(0)),
    )


def average_precisions(targets: Array, probabilities: Array) -> list[float | None]:
    """The area under each class's precision-recall curve, one class against the rest; None without an image of it.

    targets: class indices (N,) or 0/1 (N, C); probabilities (N, C).
    """
    truth = one_against_rest(targets, np.shape(probabilities)[1])
    # A sum of shares may come to a rounding error more than all.
    return [
        min(1.0, float(average_precision_score(truth[:, i], probabilities[:, i]))) if truth[:, i].any() else None
        for i in range(truth.shape[1])
    ]


def roc_areas(targets: Array, probabilities: Array) -> list[float | None]:
    """The area under each class's ROC curve, one class against the rest; None where all images or none have it."""
    truth = one_against_rest(targets, np.shape(probabilities)[1])
    return [
        float(roc_auc_score(truth[:, i], probabilities[:, i])) if 0 < truth[:, i].sum() < len(truth) else None
        for i in range(truth.shape[1])
    ]


def one_against_rest(targets: Array, num_classes: int) -> Array:
    """Targets as booleans (N, C): class indices (N,) or 0/1 (N, C)."""
    values = np.asarray(targets)
    presence: Array = values > 0 if values.ndim == 2 else np.eye(num_classes, dtype=bool)[values]
    return presence


def _per_class(found: tuple[Array, ...], given: Array, classes: tuple[str, ...]) -> dict[str, ClassScore]:
    precision, recall, f1, support = found
    return {
        name: ClassScore(
            precision=precision[i], recall=recall[i], f1=f1[i], support=int(support[i]), given=int(given[i])
        )
        for i, name in enumerate(classes)
    }


def _averages(found: tuple[Array, ...], given: Array) -> dict[str, Any]:
    """Over the classes that can be judged; `given` is how many images were given each class."""
    _, recall, f1, support = found
    judged = support + given > 0
    return {
        "balanced_accuracy": float(recall[support > 0].mean()) if support.any() else 0.0,
        "macro_f1": float(f1[judged].mean()) if judged.any() else 0.0,
    }
