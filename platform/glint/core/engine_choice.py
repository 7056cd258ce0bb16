"""Which engine runs a bundle's network, and what was measured when that was decided.

A quicker engine rounds. It may serve where rounding changes next to nothing that anyone acts on: the label and the
decision (accept, review, reject) of an image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from glint.core.engines import EngineName
from glint.core.finding import Finding
from glint.core.intervals import MIN_GROUPS, exact_interval

if TYPE_CHECKING:  # it needs scipy, which what serves a model does without
    from glint.core.bootstrap import Bootstrap

Array = np.ndarray[Any, np.dtype[Any]]

MAX_CHANGED = 0.01
"""Share of the images whose label or decision another engine may change."""
MIN_GROUPS_INT8 = 368
"""The fewest groups in which no change at all bounds the share of changes (95%, exact) below MAX_CHANGED."""


class EngineTrial(BaseModel):
    """What one engine changed on validation images, against the same network in float32."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: EngineName
    accepted: bool
    reason: str
    num_images: int = 0
    num_changed: int = Field(default=0, description="images with another label or decision")
    changed_bound: float | None = Field(default=None, description="upper 95% bound of their share; None: no groups")
    findings: tuple[Finding, ...] = Field(default=(), description="non-inferiority, overall and of each class")


class EngineDecisions(BaseModel):
    """What training found for CPUs: `chosen` is what `auto` takes where there is no GPU."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    chosen: EngineName
    trials: tuple[EngineTrial, ...] = ()
    not_converted: str | None = Field(default=None, description="why there is no OpenVINO model")
    files: dict[str, str] = Field(default_factory=dict, description="SHA-256 of each engine file in the bundle")


def hopeless_int8(drawn: Bootstrap | None) -> EngineTrial | None:
    """Why 8 bits need not be tried: so few groups that not even 0 changes would show enough. None = they may."""
    num_groups = drawn.counts.shape[1] if drawn else 0
    if num_groups >= MIN_GROUPS_INT8:
        return None
    there = f"{num_groups}" if drawn else f"fewer than {MIN_GROUPS}"
    reason = f"not tried: {there} groups of validation images are too few, {MIN_GROUPS_INT8} could show enough"
    return EngineTrial(engine="openvino-int8", accepted=False, reason=reason)


def judge_bf16(changed: Array, bound: float | None) -> EngineTrial:
    """Accepted where less than MAX_CHANGED of the images (N,) changed. It rounds as training on such a CPU does."""
    share = changed.mean()
    return EngineTrial(
        engine="openvino-bf16",
        accepted=bool(share < MAX_CHANGED),
        reason=f"{share:.2%} of {len(changed):,} images changed; must be below {MAX_CHANGED:.0%}",
        num_images=len(changed),
        num_changed=int(changed.sum()),
        changed_bound=bound,
    )


def judge_int8(changed: Array, bound: float | None, findings: list[Finding]) -> EngineTrial:
    """Accepted where the bound of the changed images (N,) is below MAX_CHANGED and no class is shown to lose."""
    refused = [finding for finding in findings if finding.verdict != "passed"]
    if bound is None:
        reason = "too few groups to bound how many images change"
    elif bound >= MAX_CHANGED:
        reason = f"up to {bound:.2%} of the images may change; must be below {MAX_CHANGED:.0%} for certain"
    elif refused:
        reason = f"non-inferiority is not shown: {refused[0].line}"
    else:
        reason = f"at most {bound:.2%} of the images change, and no class loses"
    return EngineTrial(
        engine="openvino-int8",
        accepted=bound is not None and bound < MAX_CHANGED and not refused,
        reason=reason,
        num_images=len(changed),
        num_changed=int(changed.sum()),
        changed_bound=bound,
        findings=tuple(findings),
    )


def changed_bound(changed: Array, drawn: Bootstrap | None) -> float | None:
    """Upper end of the 95% interval of the share of `changed` images (N,), over groups; None without enough groups.

    Never below the exact bound of the share of groups with any change: a percentile bootstrap of few changes is surer
    than that.
    """
    found = drawn.share(changed) if drawn else None
    if drawn is None or found is None:
        return None
    num_groups = drawn.counts.shape[1]
    with_change = len(np.unique(drawn.codes[changed]))
    return max(found.high, exact_interval(with_change, num_groups).high)
