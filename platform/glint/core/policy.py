"""From probabilities to a decision: accept, review or reject.

A defective image that is accepted, a good one that is rejected and one that a person looks at have their costs. Where
these are stated, thresholds follow from them in closed form (the reject option: Chow, On optimum recognition error and
reject tradeoff, IEEE Transactions on Information Theory 16, 1970). Confidence must mean what it says for that, so a
temperature calibrates it first.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat

from glint.core.errors import GlintError
from glint.core.outcome import Decision

Array = np.ndarray[Any, np.dtype[Any]]

PRESENT_FROM = 0.5
"""Probability from which an image of a multi-label model has a class."""


class Costs(BaseModel):
    """What the three ways to be wrong or slow cost, in one currency of the user's."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    missed_defect: PositiveFloat = Field(description="of a defective image that is accepted")
    false_alarm: PositiveFloat = Field(description="of a good image that is rejected")
    human_look: NonNegativeFloat = Field(description="of an image that a person looks at")
    missed: dict[str, PositiveFloat] = Field(default_factory=dict, description="missed_defect of single classes")

    def missing(self, label: str) -> float:
        """What it costs to accept an image of this defect class."""
        return self.missed.get(label, self.missed_defect)

    @property
    def dearest(self) -> float:
        """The highest cost of a missed defect."""
        return max([self.missed_defect, *self.missed.values()])


class Policy(BaseModel):
    """Doubtful images go to a person; of the rest, the accepted classes pass and the others are rejected.

    Kept beside the bundle with a digest of its own: changing it needs no new training.

    Without costs, an image is doubtful under `review_below`. With them, an accepted class needs a confidence c where
    (1 - c) × missed defect <= human look, a defect class one where (1 - c) × false alarm <= human look. That is
    conservative: it takes all of the remaining probability for the dearest mistake, while some of it may lie with
    another class that passes too, with a cheaper defect, or with another defect that is as rightly rejected.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    review_below: float = Field(
        default=0.5, ge=0, le=1, description="confidence under which a person looks, where no costs are stated"
    )
    accept_classes: tuple[str, ...] | None = Field(default=None, description="classes that pass; none named = all")
    costs: Costs | None = Field(default=None, description="thresholds follow from them; they need accept_classes")
    temperature: PositiveFloat = Field(
        default=1.0, description="logits are divided by it (Guo et al. 2017); fitted on the engine that serves"
    )
    fitted_on: str | None = Field(
        default=None, description="the split whose images the temperature was fitted to; told, and never decided by"
    )

    def passes(self, label: str) -> bool:
        """Whether this class is one that is accepted."""
        return self.accept_classes is None or label in self.accept_classes

    def threshold(self, label: str) -> float:
        """The confidence from which an image of this class needs no person, in 0..1."""
        if self.costs is None:
            return self.review_below
        mistake = self.costs.dearest if self.passes(label) else self.costs.false_alarm
        return max(0.0, 1 - self.costs.human_look / mistake)

    def thresholds(self, classes: Sequence[str]) -> dict[str, float]:
        """The threshold of each class."""
        return {label: self.threshold(label) for label in classes}

    def decide(self, label: str, confidence: float) -> Decision:
        """The decision for an image whose most probable class is `label`, with calibrated confidence."""
        if confidence < self.threshold(label):
            return "review"
        return "accept" if self.passes(label) else "reject"

    def decide_labels(self, probabilities: Mapping[str, float]) -> Decision:
        """The decision for an image of a multi-label model, by the calibrated probability of each class.

        Rejected when it surely has a defect; accepted when it has none and that is sure: without costs when every
        statement, of presence or absence, has a confidence of at least `review_below`; with them when the defects that
        may yet be there, each at its own cost, cost no more than a human look.
        """
        defects = {label: share for label, share in probabilities.items() if not self.passes(label)}
        found = {label: share for label, share in defects.items() if share >= PRESENT_FROM}
        if any(share >= self.threshold(label) for label, share in found.items()):
            return "reject"
        return "accept" if not found and self._surely_good(probabilities, defects) else "review"

    def _surely_good(self, probabilities: Mapping[str, float], defects: Mapping[str, float]) -> bool:
        if self.costs is None:
            return all(max(share, 1 - share) >= self.review_below for share in probabilities.values())
        return sum(share * self.costs.missing(label) for label, share in defects.items()) <= self.costs.human_look

    def decisions(self, probabilities: Array, classes: Sequence[str], multi_label: bool = False) -> list[Decision]:
        """The decision for each row of calibrated probabilities (N, C)."""
        if multi_label:
            return [self.decide_labels(dict(zip(classes, row, strict=True))) for row in probabilities.tolist()]
        best = probabilities.argmax(1)
        return [self.decide(classes[i], float(row[i])) for i, row in zip(best, probabilities, strict=True)]

    def check(self, classes: tuple[str, ...]) -> None:
        """Raise GlintError when the policy is not one for a model of these classes."""
        _check_names("accept_classes", self.accept_classes or (), classes)
        if self.costs is None:
            return
        if self.accept_classes is None:
            raise GlintError(f"policy.costs need policy.accept_classes, the classes that pass, of {list(classes)}")
        defects = tuple(label for label in classes if not self.passes(label))
        _check_names("costs.missed", self.costs.missed, defects, "defect classes")

    @property
    def digest(self) -> str:
        """What identifies this policy in an outcome: all that it decides by."""
        decisive = self.model_dump(mode="json", exclude={"fitted_on"})
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


class DecisionRates(BaseModel):
    """What a policy makes of labelled images; a rate without images to count it on is None."""

    model_config = ConfigDict(frozen=True)

    escape_rate: float | None = Field(description="share of the defective images that are accepted")
    false_reject_rate: float | None = Field(description="share of the good images that are rejected")
    review_share: float = Field(description="share of all images that a person looks at")
    cost_per_image: float | None = Field(description="mean over all images, where costs are stated")
    num_defective: int
    num_good: int
    escaped: int
    falsely_rejected: int
    reviewed: int

    @property
    def num_images(self) -> int:
        """How many images were decided on."""
        return self.num_defective + self.num_good


def decision_rates(
    policy: Policy, probabilities: Array, targets: Array, classes: Sequence[str], costs: Costs | None = None
) -> DecisionRates:
    """What the policy makes of images with known classes, at these costs or its own.

    probabilities: calibrated, (N, C), as `Predictor.score` gives them; N > 0.
    targets: class indices (N,), or 0/1 (N, C) of a multi-label model. An image is good when all of its classes are
    among the accepted ones; where none are named all are, and no image is defective. A defective image that is
    accepted costs what its dearest defect does.
    """
    multi_label = targets.ndim == 2
    decided = np.array(policy.decisions(probabilities, classes, multi_label))
    present = targets > 0 if multi_label else np.eye(len(classes), dtype=bool)[targets]
    defect = np.array([not policy.passes(label) for label in classes])
    bad = (present & defect).any(1)
    escaped, rejected, reviewed = bad & (decided == "accept"), ~bad & (decided == "reject"), decided == "review"
    return DecisionRates(
        escape_rate=float(escaped.sum() / bad.sum()) if bad.any() else None,
        false_reject_rate=float(rejected.sum() / (~bad).sum()) if not bad.all() else None,
        review_share=float(reviewed.mean()),
        cost_per_image=_cost(costs or policy.costs, classes, present & defect, escaped, rejected, reviewed),
        num_defective=int(bad.sum()),
        num_good=int((~bad).sum()),
        escaped=int(escaped.sum()),
        falsely_rejected=int(rejected.sum()),
        reviewed=int(reviewed.sum()),
    )


def fit_policy(
    policy: Policy, probabilities: Array, targets: Array, classes: Sequence[str], split: str = "val"
) -> Policy:
    """The policy with the temperature that calibrates these uncalibrated probabilities (N, C) best.

    Of a split that training did not learn from, scored on the engine that serves; targets as for `decision_rates`.
    """
    # Here, for it brings scipy along, which a server does not need.
    from glint.core.calibration import fit_temperature, logits_of

    temperature = round(fit_temperature(logits_of(probabilities, targets.ndim == 2), targets), 4)
    fitted = policy.model_copy(update={"temperature": temperature, "fitted_on": split})
    fitted.check(tuple(classes))
    return fitted


def _cost(
    costs: Costs | None, classes: Sequence[str], defects: Array, escaped: Array, rejected: Array, reviewed: Array
) -> float | None:
    if costs is None:
        return None
    of_class = np.array([costs.missing(label) for label in classes])
    missed = (defects * of_class).max(1)
    return float((missed * escaped + costs.false_alarm * rejected + costs.human_look * reviewed).mean())


def _check_names(
    field: str, named: Sequence[str] | Mapping[str, float], known: Sequence[str], kind: str = "classes"
) -> None:
    unknown = sorted(set(named) - set(known))
    if unknown:
        raise GlintError(f"policy.{field} names {unknown}, which are not among the {kind} {list(known)}")
