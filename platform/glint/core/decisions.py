"""What a decision policy makes of labelled images, with how far each rate may be luck."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
from pydantic import Field

from glint.core.bootstrap import Bootstrap
from glint.core.intervals import Interval
from glint.core.metrics import one_against_rest
from glint.core.outcome import Decision
from glint.core.policy import DecisionRates, Policy, decision_rates

Array = np.ndarray[Any, np.dtype[Any]]


class Decisions(DecisionRates):
    """The rates, their intervals where groups allow, and how the images of each class were decided on."""

    counts: dict[Decision, int]
    by_class: dict[str, dict[Decision, int]] = Field(description="an image with several labels counts for each")
    accept_classes: tuple[str, ...] | None = Field(description="the classes that pass; None: all, so nothing escapes")
    thresholds: dict[str, float] = Field(description="confidence from which no person looks, by class")
    escape_interval: Interval | None = None
    false_reject_interval: Interval | None = None
    review_interval: Interval | None = None


def decisions(
    policy: Policy, probabilities: Array, targets: Array, classes: Sequence[str], drawn: Bootstrap | None
) -> Decisions:
    """Decide on every image by its calibrated probabilities (N, C); targets (N,), or (N, C) of several labels."""
    decided = np.array(policy.decisions(probabilities, classes, targets.ndim == 2))
    present = one_against_rest(targets, len(classes))
    bad = (present & np.array([not policy.passes(label) for label in classes])).any(1)
    return Decisions(
        **dict(decision_rates(policy, probabilities, targets, classes)),
        counts=_counts(decided),
        by_class={label: _counts(decided[present[:, i]]) for i, label in enumerate(classes)},
        accept_classes=policy.accept_classes,
        thresholds=policy.thresholds(classes),
        escape_interval=drawn.share(decided == "accept", bad) if drawn else None,
        false_reject_interval=drawn.share(decided == "reject", ~bad) if drawn else None,
        review_interval=drawn.share(decided == "review") if drawn else None,
    )


def _counts(decided: Array) -> dict[Decision, int]:
    found = Counter(decided.tolist())
    return {decision: found[decision] for decision in get_args(Decision)}
