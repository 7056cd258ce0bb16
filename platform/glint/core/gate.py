"""The gate: whether a model may take the champion's place, rule by rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from glint.core.bootstrap import MIN_AVERAGED_GROUPS, MIN_JUDGED_GROUPS, Resampling
from glint.core.comparison import Comparison, Difference
from glint.core.finding import Finding
from glint.core.leaks import NearDuplicate
from glint.core.outcome import ModelRef
from glint.core.policy import Costs, Policy
from glint.core.splits import listed

MIN_CLASS_IMAGES = 20
"""A class with fewer images, or with images in fewer than MIN_JUDGED_GROUPS groups, is not judged by itself."""

Gate = Literal["passed", "approved", "refused", "unchecked"]


class Margins(BaseModel):
    """What is still good enough."""

    model_config = ConfigDict(frozen=True)

    macro_f1: float = Field(default=0.01, ge=0, le=1, description="that the true macro-F1 may be below the champion's")
    recall: float = Field(default=0.05, ge=0, le=1, description="the same for the recall of each class")
    latency_factor: float = Field(default=1.5, ge=0, description="of the champion's time for an image")
    max_latency_ms: float | None = Field(default=None, ge=0, description="for an image, whatever the champion takes")


class GateReport(BaseModel):
    """What the gate looked at and what each rule said."""

    model_config = ConfigDict(frozen=True)

    challenger: ModelRef
    champion: ModelRef | None
    manifest: str
    manifest_digest: str
    split: str
    num_images: int
    left_out: dict[str, int] = Field(description="images that could not be scored, by reason")
    resampling: Resampling | None
    margins: Margins
    findings: tuple[Finding, ...]
    near_duplicates: tuple[NearDuplicate, ...] = Field(description="the closest pairs")
    created_at: datetime = Field(default_factory=lambda: datetime.now(UTC))

    @property
    def refused(self) -> tuple[Finding, ...]:
        """The rules that say no."""
        return tuple(finding for finding in self.findings if finding.verdict == "refused")


class Promotion(BaseModel):
    """How a version came by its alias, as the registry keeps it."""

    model_config = ConfigDict(frozen=True)

    model: str
    version: str
    alias: str
    before: str | None = Field(description="the version that the alias meant")
    gate: Gate
    by: str
    at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    reason: str | None = Field(default=None, description="why what the gate refused, or has not seen, was approved")
    refused: tuple[str, ...] = Field(default=(), description="the rules that refused")
    manifest: str | None = Field(default=None, description="digest of what the gate looked at")


class SelfTestFigures(NamedTuple):
    """How far the bundle's samples score from what training's validation gave them."""

    num_samples: int
    max_difference: float
    tolerance: float
    error: str | None


def non_inferiority(
    comparison: Comparison, resampling: Resampling, support: Mapping[str, int], margins: Margins
) -> list[Finding]:
    """The lower bound of each paired 95% interval of challenger minus champion must be above minus the margin.

    comparison: the challenger against the champion. support: images by class.

    Without enough groups for an interval the rule refuses. An interval over single images would be there to be had,
    but images of one group resemble each other: it would be too narrow, and pass what has not been shown.
    """
    overall = comparison.scores["macro_f1"]
    if overall.interval is None:
        few = f"{listed(comparison.rare)} in fewer than {MIN_AVERAGED_GROUPS} values of {resampling.column}"
        reason = resampling.note if resampling.column is None else few
        why = f"{overall.difference:+.4f}, but there is no interval to judge it by: {reason}"
        return [Finding(rule="macro-F1", verdict="refused", measured=why, limit=f"above -{margins.macro_f1:g}")]
    recalls = [_of_class(name, one, support[name], margins.recall) for name, one in sorted(comparison.recall.items())]
    return [_difference("macro-F1", overall, margins.macro_f1), *recalls]


def _of_class(name: str, recall: Difference, num_images: int, margin: float) -> Finding:
    """A class of which nothing is lost, on too few images to show that little is, is no reason to refuse."""
    rule, few = f"recall of {name}", f"{recall.difference:+.4f} on {num_images:,} images"
    if num_images < MIN_CLASS_IMAGES or recall.interval is None:
        needs = f"from {MIN_CLASS_IMAGES} images in {MIN_JUDGED_GROUPS} groups on"
        return Finding(rule=rule, verdict="not judged", measured=few, limit=needs)
    if not recall.lost and recall.interval.low <= -margin:
        measured = f"{few}: none is lost, yet so few show no more than {recall.interval.low:+.4f}"
        return Finding(rule=rule, verdict="not judged", measured=measured, limit=f"wholly above -{margin:g}")
    return _difference(rule, recall, margin)


def _difference(rule: str, found: Difference, margin: float) -> Finding:
    assert found.interval is not None
    low, high = found.interval.low, found.interval.high
    few = "" if found.lost or low > -margin else " (no image is lost, but they are too few to show more)"
    return Finding(
        rule=rule,
        verdict="passed" if low > -margin else "refused",
        measured=f"{found.against:.4f} -> {found.model:.4f}, the difference between {low:+.4f} and {high:+.4f}{few}",
        limit=f"wholly above -{margin:g}",
        value=low,
        bound=-margin,
    )


def no_champion(reason: str) -> Finding:
    """Stands for the rules that compare, where there is nothing to compare with."""
    return Finding(rule="champion", verdict="not judged", measured=reason)


def policy_change(champion: Policy, challenger: Policy) -> list[Finding]:
    """Tells what promoting changes in how images are decided on, for a policy belongs to a version and does not move.

    Nothing where only the temperatures differ, which are fitted to each model.
    """
    fields = ("costs", "review_below", "accept_classes")
    sides = [{name: _worded(getattr(policy, name)) for name in fields} for policy in (champion, challenger)]
    changes = [f"{name}: {sides[0][name]} -> {sides[1][name]}" for name in fields if sides[0][name] != sides[1][name]]
    if not changes:
        return []
    measured = f"differs from the champion's: {'; '.join(changes)}"
    limit = "(glint policy NAME/VERSION changes it)"
    return [Finding(rule="policy", verdict="reported", measured=measured, limit=limit)]


def _worded(value: Costs | tuple[str, ...] | float | None) -> str:
    if isinstance(value, Costs):
        costs = value.model_dump()
        single = {f"missed {label}": cost for label, cost in costs.pop("missed").items()}
        return ", ".join(f"{name.replace('_', ' ')} {cost:g}" for name, cost in (costs | single).items())
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else ", ".join(value) or "no class"


def same_task(champion: Sequence[str], challenger: Sequence[str], same_kind: bool) -> Finding | None:
    """Refuses where the two cannot be compared class by class; None where they can."""
    if same_kind and tuple(champion) == tuple(challenger):
        return None
    kind = "" if same_kind else ", and only one of the two gives several labels"
    measured = f"the champion knows {listed(champion)}{kind}"
    limit = f"those of the challenger: {listed(challenger)}"
    return Finding(rule="same classes", verdict="refused", measured=measured, limit=limit)


def parity(found: SelfTestFigures | None) -> Finding:
    """The bundle, read and scored as a server would, must say what training's validation said."""
    rule = "preprocessing parity"
    if found is None:
        return Finding(rule=rule, verdict="refused", measured="the bundle has no self-test", limit="one, from training")
    differs = f"probabilities of {found.num_samples} samples differ by {found.max_difference:.2g} at most"
    return Finding(
        rule=rule,
        verdict="passed" if found.max_difference <= found.tolerance else "refused",
        measured=differs + (f" ({found.error})" if found.error else ""),
        limit=f"at most {found.tolerance:g}",
        value=found.max_difference,
        bound=found.tolerance,
    )


def latency(challenger_ms: float, champion_ms: float | None, margins: Margins) -> Finding | None:
    """95th percentiles of one image at a time, measured side by side; None where there is nothing to hold it to."""
    bounds = {}
    if champion_ms is not None:
        bounds[f"{margins.latency_factor:g} times the champion's {champion_ms:.1f} ms"] = (
            margins.latency_factor * champion_ms
        )
    if margins.max_latency_ms is not None:
        bounds["--max-latency-ms"] = margins.max_latency_ms
    if not bounds:
        return None
    which = min(bounds, key=lambda name: bounds[name])
    return Finding(
        rule="latency",
        verdict="passed" if challenger_ms <= bounds[which] else "refused",
        measured=f"{challenger_ms:.1f} ms for an image (95th percentile)",
        limit=f"at most {round(bounds[which], 3):g} ms: {which}",
        value=challenger_ms,
        bound=bounds[which],
    )
