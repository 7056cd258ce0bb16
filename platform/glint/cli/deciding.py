"""A decision policy, as options change it and as a person reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ValidationError
from rich.console import RenderableType

from glint.adapters.registry import Registry
from glint.cli.tables import rows
from glint.cli.who import user
from glint.core.errors import GlintError
from glint.core.policy import Costs, Policy
from glint.core.policy_trial import Effect, Tried
from glint.core.recipe import describe
from glint.vision.bundle import Bundle
from glint.wiring import Model

COSTS = ("missed_defect", "false_alarm", "human_look")


class Shown(BaseModel):
    """What `glint policy` answers: a policy, whether it is active now, and those made for the model so far.

    number: 0 for the bundle's own, None for one that is only shown.
    """

    model: str
    number: int | None
    active: bool
    digest: str
    policy: Policy
    thresholds: dict[str, float]
    tried: Tried | None
    history: dict[int, dict[str, Any]]


@dataclass(frozen=True)
class Changes:
    """The options of `glint policy` that make another policy; None = as it is."""

    missed_defect: float | None = None
    false_alarm: float | None = None
    human_look: float | None = None
    missed: Sequence[str] = ()
    accept_class: Sequence[str] | None = None
    review_below: float | None = None

    @property
    def costs(self) -> dict[str, Any]:
        """The costs that are named."""
        named = {name: value for name in COSTS if (value := getattr(self, name)) is not None}
        return named | ({"missed": dict(map(_class_cost, self.missed))} if self.missed else {})

    @property
    def text(self) -> str:
        """The options, as the history keeps them."""
        given = {name.replace("_", "-"): getattr(self, name) for name in (*COSTS, "review_below")}
        single = [f"--{name} {value:g}" for name, value in given.items() if value is not None]
        missed = [f"--missed {pair}" for pair in self.missed]
        return " ".join([*single, *missed, *(f"--accept-class {one}" for one in self.accept_class or ())])

    def applied(self, policy: Policy, classes: tuple[str, ...]) -> Policy:
        """The policy with these changes; raises GlintError when it is none for a model of these classes.

        Costs take the place of `review_below`, and the other way round.
        """
        if self.review_below is not None and self.costs:
            raise GlintError(
                f"--review-below {self.review_below:g} and costs: thresholds follow from the one or the other"
            )
        document = policy.model_dump()
        if self.accept_class is not None:
            document["accept_classes"] = tuple(self.accept_class)
        if self.review_below is not None:
            document |= {"review_below": self.review_below, "costs": None}
        if self.costs:
            document["costs"] = _costs(policy.costs, self.costs)
        try:
            changed = Policy.model_validate(document)
        except ValidationError as error:
            raise GlintError(describe(error, "policy")) from None
        changed.check(classes)
        return changed


def _costs(before: Costs | None, named: dict[str, Any]) -> dict[str, Any]:
    known = before.model_dump() if before else {}
    absent = [f"--{name.replace('_', '-')}" for name in COSTS if name not in named and name not in known]
    if absent:
        raise GlintError(f"the policy has no costs yet: state {' and '.join(absent)} too")
    return known | named | {"missed": known.get("missed", {}) | named.get("missed", {})}


def _class_cost(pair: str) -> tuple[str, float]:
    name, _, cost = pair.rpartition("=")
    try:
        return (name, float(cost)) if name else _no_pair(pair)
    except ValueError:
        return _no_pair(pair)


def _no_pair(pair: str) -> tuple[str, float]:
    raise GlintError(f"--missed {pair!r} must be CLASS=COST, for example open=500")


def go_back(registry: Registry, model: Model, number: int, show: bool) -> Shown:
    """Make an earlier policy the active one; with `show`, only show it."""
    name, version = _named(model)
    text = registry.policy(name, version, number)
    policy = Policy.model_validate_json(text) if text else Bundle(model.bundle.directory).policy
    if not show:
        registry.use_policy(name, version, number)
    return _shown(registry, model, policy, number, None)


def decide_anew(
    registry: Registry, model: Model, policy: Policy, change: str, tried: Tried | None, show: bool
) -> Shown:
    """Keep a policy and make it the active one, unless it is that already; with `show`, only show it."""
    name, version = _named(model)
    policy = tried.policy if tried else policy
    number: int | None = registry.policy_number(name, version)
    if policy != model.bundle.policy:
        record = {"at": datetime.now(UTC).isoformat(), "by": user(), "digest": policy.digest, "change": change}
        number = None if show else registry.put_policy(name, version, policy.model_dump_json(indent=2), record)
    return _shown(registry, model, policy, number, tried)


def _named(model: Model) -> tuple[str, str]:
    assert model.name is not None
    assert model.version is not None
    return model.name, model.version


def _shown(registry: Registry, model: Model, policy: Policy, number: int | None, tried: Tried | None) -> Shown:
    name, version = _named(model)
    return Shown(
        model=model.uri,
        number=number,
        active=number == registry.policy_number(name, version),
        digest=policy.digest,
        policy=policy,
        thresholds=policy.thresholds(model.bundle.info.classes),
        tried=tried,
        history=registry.policies(name, version),
    )


def drawn(shown: Shown) -> list[RenderableType]:
    """For a person: thresholds, what the policy rests on, its effect on labelled images, and the history."""
    policy = shown.policy
    named = {None: "a new policy", 0: "the bundle's own policy"}.get(shown.number, f"policy {shown.number}")
    basis = f"costs: {_priced(policy.costs)}" if policy.costs else f"review below {policy.review_below:g}"
    state = "active" if shown.active else "not active"
    lines = [
        (name, "accept" if policy.passes(name) else "reject", f"{value:.4f}")
        for name, value in shown.thresholds.items()
    ]
    parts: list[RenderableType] = [
        f"{shown.model}: {named} ({shown.digest}), {state}; {basis}; temperature {policy.temperature:g}",
        rows(["class", "decision", "from confidence"], lines),
    ]
    if shown.tried:
        parts.append(_effects(shown.tried))
    if shown.history:
        made = [
            (number, *(record.get(field, "") for field in ("at", "by", "change")))
            for number, record in shown.history.items()
        ]
        parts.append(rows(["policy", "made at", "by", "with"], made))
    return parts


def _priced(costs: Costs) -> str:
    named = {name.replace("_", " "): getattr(costs, name) for name in COSTS}
    named |= {f"missed {label}": cost for label, cost in costs.missed.items()}
    return ", ".join(f"{name} {cost:g}" for name, cost in named.items())


def _effects(tried: Tried) -> RenderableType:
    def column(effect: Effect) -> list[float | None]:
        found = effect.rates
        rates = [found.escape_rate, found.false_reject_rate, found.review_share, found.cost_per_image]
        return [*rates, effect.ece, effect.temperature]

    names = ["escape rate", "false-reject rate", "review share", "cost an image", "ECE", "temperature"]
    lines = zip(names, column(tried.present), column(tried.new), strict=True)
    return rows([f"on {tried.num_images:,} images", "present policy", "this one, fitted on them"], list(lines))
