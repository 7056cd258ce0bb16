"""The policy sends doubtful images to a person and sorts the rest."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from glint.core.errors import GlintError
from glint.core.policy import Policy


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


def test_check_names_the_class_that_the_model_does_not_have() -> None:
    policy = Policy(accept_classes=("good", "fine"))
    with pytest.raises(GlintError, match=r"policy.accept_classes names \['fine'\], .* \['good', 'open'\]"):
        policy.check(("good", "open"))
    policy.check(("good", "fine", "open"))


def test_digest_changes_with_what_the_policy_says_and_with_nothing_else() -> None:
    policy = Policy(review_below=0.8, accept_classes=("good",))
    assert policy.digest == Policy(accept_classes=("good",), review_below=0.8).digest
    others = [Policy(), Policy(review_below=0.8), Policy(accept_classes=("good",)), Policy(accept_classes=())]
    assert len({policy.digest, *(other.digest for other in others)}) == 5


@pytest.mark.parametrize("values", [{"review_below": 1.1}, {"review_below": -0.1}, {"review_bellow": 0.5}])
def test_impossible_policies_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Policy.model_validate(values)
