"""Whether a model is right as often as it is sure: temperature scaling, reliability, expected calibration error.

One number, the temperature, divides the logits; it changes no label of a single-label model, only how sure the model
says it is (Guo et al., On Calibration of Modern Neural Networks, 2017).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, softmax

Array = np.ndarray[Any, np.dtype[Any]]

NUM_BINS = 15
TEMPERATURES = (0.05, 20.0)
LEAST = float(np.finfo(np.float32).tiny)
MOST = 1 - 2.0**-24
"""What float32 can still tell from 0, and from 1."""


class Bin(BaseModel):
    """Answers whose confidence lies within `low` and `high`: how many, how sure and how often right on average."""

    model_config = ConfigDict(frozen=True)

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


class Calibration(BaseModel):
    """What the policy's temperature does to the expected calibration error, and the bins behind it."""

    model_config = ConfigDict(frozen=True)

    temperature: float
    fitted_on: str | None = None
    """The split whose images the temperature was fitted to; None where that is not known."""
    ece_before: float
    ece_after: float
    bins_before: tuple[Bin, ...] = ()
    bins_after: tuple[Bin, ...] = ()


def fit_temperature(logits: Array, targets: Array) -> float:
    """The temperature that makes the targets likeliest, between 0.05 and 20.

    logits (N, C); targets (N,) class indices under a softmax, or (N, C) of 0/1 under a sigmoid each. The targets are
    smoothed by one image in N + 2 (Platt, Probabilistic Outputs for Support Vector Machines, 1999): without a mistake
    among them, the likeliest temperature would be 0.
    """
    logits, targets = np.asarray(logits, dtype=np.float64), np.asarray(targets)
    loss = _sigmoid_loss if targets.ndim == 2 else _softmax_loss
    doubt = 1 / (len(targets) + 2)
    low, high = np.log(TEMPERATURES)
    found = minimize_scalar(
        lambda log_t: loss(logits / np.exp(log_t), targets, doubt), bounds=(low, high), method="bounded"
    )
    return float(np.exp(found.x))


def logits_of(probabilities: Array, multi_label: bool = False) -> Array:
    """Logits (N, C) that give these probabilities; those of a softmax are known up to a constant for each row."""
    values = np.asarray(probabilities, dtype=np.float64)
    if multi_label:
        values = np.clip(values, LEAST, MOST)
        return np.log(values) - np.log1p(-values)
    return np.log(np.maximum(values, LEAST))


def rescaled(probabilities: Array, temperature: float, multi_label: bool = False) -> Array:
    """The probabilities (N, C), float32, that the same logits give when divided by `temperature`.

    The inverse is `rescaled` by 1 / temperature.
    """
    if temperature == 1:
        return np.asarray(probabilities, dtype=np.float32)
    logits = logits_of(probabilities, multi_label) / temperature
    return np.asarray(expit(logits) if multi_label else softmax(logits, axis=1), dtype=np.float32)


def expected_calibration_error(confidence: Array, correct: Array, num_bins: int = NUM_BINS) -> float:
    """The mean distance between confidence and accuracy over bins of equal width, weighted by their images."""
    bins = reliability(confidence, correct, num_bins)
    total = sum(found.count for found in bins)
    return sum(found.count * abs(found.confidence - found.accuracy) for found in bins) / total if total else 0.0


def reliability(confidence: Array, correct: Array, num_bins: int = NUM_BINS) -> tuple[Bin, ...]:
    """The bins of equal width in 0..1 that hold an answer; confidence (N,) in 0..1, correct (N,) of 0/1."""
    confidence, correct = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    # A bin holds its upper bound, as in the paper.
    where = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    counts = np.bincount(where, minlength=num_bins)
    sure, right = (np.bincount(where, weights=values, minlength=num_bins) for values in (confidence, correct))
    return tuple(
        Bin(
            low=i / num_bins,
            high=(i + 1) / num_bins,
            count=int(counts[i]),
            confidence=float(sure[i] / counts[i]),
            accuracy=float(right[i] / counts[i]),
        )
        for i in np.flatnonzero(counts)
    )


def calibration(
    raw: Array, probabilities: Array, targets: Array, temperature: float, fitted_on: str | None = None
) -> Calibration:
    """Compare the probabilities (N, C) before (`raw`) and after scaling on targets (N,), or (N, C) of several labels.

    One answer an image: its surest class. With several labels, each class of each image is an answer.
    """
    before, after = _answers(raw, targets), _answers(probabilities, targets)
    return Calibration(
        temperature=temperature,
        fitted_on=fitted_on,
        ece_before=expected_calibration_error(*before),
        ece_after=expected_calibration_error(*after),
        bins_before=reliability(*before),
        bins_after=reliability(*after),
    )


def _answers(probabilities: Array, targets: Array) -> tuple[Array, Array]:
    """How sure each answer was, and whether it is right."""
    probabilities, targets = np.asarray(probabilities), np.asarray(targets)
    if targets.ndim == 2:
        return probabilities.ravel(), targets.ravel()
    return probabilities.max(1), probabilities.argmax(1) == targets


def _softmax_loss(logits: Array, targets: Array, doubt: float) -> float:
    likelihoods = log_softmax(logits, axis=1)
    own = likelihoods[np.arange(len(targets)), targets]
    return -float(((1 - doubt) * own + doubt * likelihoods.mean(1)).mean())


def _sigmoid_loss(logits: Array, targets: Array, doubt: float) -> float:
    smooth = targets * (1 - doubt) + (1 - targets) * doubt
    return float((np.logaddexp(0, logits) - smooth * logits).mean())
