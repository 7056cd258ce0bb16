"""The policy sends doubtful images to a person and sorts the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from glint.core.errors import GlintError
from glint.core.policy import Costs, Policy, decision_rates, fit_policy

CLASSES = ("good", "open", "short")
COSTS = Costs(missed_defect=100, false_alarm=10, human_look=1)
PRICED = Policy(accept_classes=("good",), costs=COSTS)


@pytest.mark.parametrize(
    ("label", "confidence", "decision"),
    [
        ("good", 0.95, "accept"),
        ("good", 0.8, "accept"),
        ("good", 0.79, "review"),
        ("open", 0.95, "reject"),
        ("open", 0.1, "review"),
    ],
)
def test_decision_follows_confidence_first_and_class_second(label: str, confidence: float, decision: str) -> None:
    assert Policy(review_below=0.8, accept_classes=("good",)).decide(label, confidence) == decision


def test_every_sure_image_is_accepted_when_no_class_is_named() -> None:
    assert {Policy().decide(label, 0.9) for label in ("good", "open")} == {"accept"}


def test_none_is_accepted_when_no_class_may_be() -> None:
    assert Policy(accept_classes=()).decide("good", 0.9) == "reject"


def test_thresholds_follow_from_costs() -> None:
    assert PRICED.thresholds(CLASSES) == pytest.approx({"good": 0.99, "open": 0.9, "short": 0.9})
    decided = [PRICED.decide(*image) for image in (("good", 0.989), ("good", 0.991), ("open", 0.89), ("open", 0.91))]
    assert decided == ["review", "accept", "review", "reject"]


def test_one_dear_defect_makes_accepting_harder_and_rejecting_no_easier() -> None:
    dear = Policy(accept_classes=("good",), costs=COSTS.model_copy(update={"missed": {"short": 1000.0}}))
    assert dear.thresholds(CLASSES) == pytest.approx({"good": 0.999, "open": 0.9, "short": 0.9})


def test_nobody_looks_where_a_look_costs_more_than_any_mistake() -> None:
    policy = Policy(accept_classes=("good",), costs=Costs(missed_defect=5, false_alarm=3, human_look=7))
    assert set(policy.thresholds(CLASSES).values()) == {0.0}
    assert {policy.decide("good", 0.34), policy.decide("open", 0.34)} == {"accept", "reject"}


@given(
    st.lists(st.floats(0.01, 1), min_size=3, max_size=3),
    st.floats(0.1, 1000),
    st.floats(0.1, 1000),
    st.floats(0, 1000),
    st.floats(0.1, 1000),
)
def test_what_needs_no_person_never_risks_more_than_a_look(
    weights: list[float], missed: float, alarm: float, look: float, missed_open: float
) -> None:
    costs = Costs(missed_defect=missed, false_alarm=alarm, human_look=look, missed={"open": missed_open})
    policy = Policy(accept_classes=("good",), costs=costs)
    good, is_open, short = shares = np.array(weights) / sum(weights)
    best = int(shares.argmax())
    decision = policy.decide(CLASSES[best], float(shares[best]))
    risk = {"accept": is_open * missed_open + short * missed, "reject": good * alarm, "review": 0}[decision]
    assert risk <= look * (1 + 1e-9) + 1e-9


def test_costs_need_the_classes_that_pass() -> None:
    with pytest.raises(GlintError, match=r"policy.costs need policy.accept_classes, .* \['good', 'open', 'short'\]"):
        Policy(costs=COSTS).check(CLASSES)


@pytest.mark.parametrize("label", ["good", "scratch"])
def test_only_defect_classes_can_be_missed(label: str) -> None:
    costs = COSTS.model_copy(update={"missed": {label: 5.0}})
    complaint = rf"policy.costs.missed names \['{label}'\], .* the defect classes \['open', 'short'\]"
    with pytest.raises(GlintError, match=complaint):
        Policy(accept_classes=("good",), costs=costs).check(CLASSES)


def test_check_names_the_class_that_the_model_does_not_have() -> None:
    policy = Policy(accept_classes=("good", "fine"))
    with pytest.raises(GlintError, match=r"policy.accept_classes names \['fine'\], .* \['good', 'open'\]"):
        policy.check(("good", "open"))
    policy.check(("good", "fine", "open"))


def test_digest_changes_with_what_the_policy_says_and_with_nothing_else() -> None:
    policy = Policy(review_below=0.8, accept_classes=("good",))
    assert policy.digest == Policy(accept_classes=("good",), review_below=0.8).digest
    others = [
        Policy(),
        Policy(review_below=0.8),
        Policy(accept_classes=("good",)),
        Policy(accept_classes=()),
        Policy(temperature=2),
        PRICED,
    ]
    assert len({policy.digest, *(other.digest for other in others)}) == 7
    prices = [{"open": 1.0, "short": 2.0}, {"short": 2.0, "open": 1.0}]
    assert len({Policy(costs=COSTS.model_copy(update={"missed": missed})).digest for missed in prices}) == 1


@pytest.mark.parametrize(
    "values",
    [
        {"review_below": 1.1},
        {"review_below": -0.1},
        {"review_bellow": 0.5},
        {"temperature": 0},
        {"costs": {"missed_defect": 0, "false_alarm": 1, "human_look": 1}},
        {"costs": {"missed_defect": 1, "false_alarm": 1}},
        {"costs": {"missed_defect": float("inf"), "false_alarm": 1, "human_look": 1}},
        {"costs": {"missed_defect": 1, "false_alarm": 1, "human_look": 1, "missed": {"open": -1}}},
    ],
)
def test_impossible_policies_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Policy.model_validate(values)


# Several labels an image.


@pytest.mark.parametrize(
    ("shares", "decision"),
    [
        ((0.9, 0.1, 0.05), "accept"),
        ((0.1, 0.1, 0.05), "accept"),
        ((0.9, 0.1, 0.3), "review"),
        ((0.7, 0.1, 0.05), "review"),
        ((0.9, 0.1, 0.6), "review"),
        ((0.9, 0.1, 0.9), "reject"),
        ((0.6, 0.6, 0.9), "reject"),
    ],
)
def test_several_labels_pass_only_without_a_defect_and_all_of_them_sure(
    shares: tuple[float, ...], decision: str
) -> None:
    policy = Policy(review_below=0.8, accept_classes=("good",))
    assert policy.decide_labels(dict(zip(CLASSES, shares, strict=True))) == decision


def test_risks_of_several_labels_add_up() -> None:
    def decided(*shares: float) -> str:
        return PRICED.decide_labels(dict(zip(CLASSES, shares, strict=True)))

    assert decided(0.5, 0.009, 0.0) == "accept"
    assert decided(0.99, 0.009, 0.009) == "review"
    assert decided(0.99, 0.91, 0.4) == "reject"
    assert decided(0.99, 0.89, 0.4) == "review"


# On labelled images.


def test_rates_count_escapes_false_rejects_and_looks() -> None:
    policy = Policy(review_below=0.7, accept_classes=("good",))
    shares = np.array([[0.9, 0.1, 0], [0.9, 0, 0.1], [0.1, 0.9, 0], [0.1, 0.9, 0], [0.6, 0.4, 0], [0.1, 0, 0.9]])
    rates = decision_rates(policy, shares, np.array([0, 1, 0, 1, 2, 1]), CLASSES)
    assert (rates.escape_rate, rates.false_reject_rate, rates.review_share) == (1 / 4, 1 / 2, 1 / 6)
    assert (rates.num_images, rates.num_defective, rates.num_good) == (6, 4, 2)
    assert (rates.escaped, rates.falsely_rejected, rates.reviewed) == (1, 1, 1)
    assert rates.cost_per_image is None


def test_cost_is_the_mean_over_all_images() -> None:
    costs = Costs(missed_defect=100, false_alarm=10, human_look=8, missed={"short": 40})
    policy = Policy(accept_classes=("good",), costs=costs)
    shares = np.array([[0.95, 0.05, 0], [0.95, 0, 0.05], [0.1, 0.9, 0], [0.5, 0.5, 0], [0, 1, 0]])
    rates = decision_rates(policy, shares, np.array([1, 2, 0, 1, 1]), CLASSES)
    assert rates.cost_per_image == pytest.approx((100 + 40 + 10 + 8 + 0) / 5)


def test_rates_of_what_there_is_none_of_are_unknown() -> None:
    shares = np.array([[0.9, 0.1, 0.0]])
    assert decision_rates(Policy(), shares, np.array([1]), CLASSES).escape_rate is None
    assert decision_rates(PRICED, shares, np.array([1]), CLASSES).false_reject_rate is None


def test_an_image_of_several_defects_is_one_escape_and_costs_what_the_dearest_does() -> None:
    costs = Costs(missed_defect=100, false_alarm=10, human_look=1, missed={"short": 400})
    policy = Policy(accept_classes=("good",), costs=costs)
    shares = np.array([[0.9, 0.0, 0.0], [0.9, 0.0, 0.0], [0.9, 0.95, 0.0], [0.9, 0.5, 0.0]])
    targets = np.array([[0, 1, 1], [1, 0, 0], [1, 0, 0], [0, 0, 0]], dtype=np.float32)
    rates = decision_rates(policy, shares, targets, CLASSES)
    assert (rates.num_defective, rates.escaped, rates.falsely_rejected, rates.reviewed) == (1, 1, 1, 1)
    assert rates.cost_per_image == pytest.approx((400 + 0 + 10 + 1) / 4)


# Temperature.


def softmax(logits: np.ndarray) -> np.ndarray:
    power = np.exp(logits - logits.max(1, keepdims=True))
    return power / power.sum(1, keepdims=True)


def test_fitting_finds_the_temperature_that_the_answers_were_drawn_by() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(4000, 3), scale=2)
    truth = softmax(logits)
    targets = (truth.cumsum(1) < random.random((4000, 1))).sum(1)
    fitted = fit_policy(PRICED, softmax(logits * 2.5), targets, CLASSES)
    assert fitted.temperature == pytest.approx(2.5, rel=0.08)
    assert fitted.costs == PRICED.costs
    present = 1 / (1 + np.exp(-logits))
    several = (random.random((4000, 3)) < present).astype(np.float32)
    fitted = fit_policy(PRICED, 1 / (1 + np.exp(-logits * 2.5)), several, CLASSES)
    assert fitted.temperature == pytest.approx(2.5, rel=0.08)
