"""A new decision policy on labelled images: its temperature fitted, its effect beside that of the present one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from glint.core.calibration import calibration, rescaled
from glint.core.policy import DecisionRates, Policy, decision_rates, fit_policy

Array = np.ndarray[Any, np.dtype[Any]]


class Effect(BaseModel):
    """What a policy does with the images."""

    model_config = ConfigDict(frozen=True)

    temperature: float
    ece: float = Field(description="expected calibration error of the confidence")
    rates: DecisionRates


class Tried(BaseModel):
    """The policy with its temperature fitted, and what it does with the same images beside the present one."""

    model_config = ConfigDict(frozen=True)

    policy: Policy
    num_images: int
    present: Effect
    new: Effect


def try_policy(
    present: Policy, new: Policy, raw: Array, targets: Array, classes: Sequence[str], split: str = "val"
) -> Tried:
    """Fit `new` to uncalibrated probabilities (N, C), and count what either decides; targets (N,) or 0/1 (N, C).

    What either costs is by the costs of `new`, or there would be nothing to compare.
    """
    fitted = fit_policy(new, raw, targets, classes, split)

    def effect(policy: Policy) -> Effect:
        probabilities = rescaled(raw, policy.temperature, targets.ndim == 2)
        return Effect(
            temperature=policy.temperature,
            ece=calibration(raw, probabilities, targets, policy.temperature).ece_after,
            rates=decision_rates(policy, probabilities, targets, classes, fitted.costs),
        )

    return Tried(policy=fitted, num_images=len(raw), present=effect(present), new=effect(fitted))
