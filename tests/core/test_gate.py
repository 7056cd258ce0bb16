"""Each rule of the gate refuses what it is there for, and says by how much."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from glint.core.bootstrap import bootstrap
from glint.core.comparison import comparison
from glint.core.gate import (
    MIN_CLASS_IMAGES,
    Finding,
    GateReport,
    Margins,
    SelfTestFigures,
    latency,
    no_champion,
    non_inferiority,
    parity,
    policy_change,
    same_task,
)
from glint.core.metrics import classification_scores, multi_label_scores
from glint.core.outcome import ModelRef
from glint.core.policy import Costs, Policy

CLASSES = ("good", "open", "short")
CHAMPION = ModelRef(name="boards", version="1", bundle="b1", policy="p", engine="torch")
TARGETS = np.arange(600) % 3
USUAL = Margins()
GROUPS = [f"board-{i // 12}" for i in range(600)]


def spoilt(share: float, of: int | None = None, seed: int = 0) -> np.ndarray:
    """The right answers but for this share, of one class or of all."""
    wrong = np.random.default_rng(seed).random(len(TARGETS)) < share
    if of is not None:
        wrong &= of == TARGETS
    return np.where(wrong, (TARGETS + 1) % 3, TARGETS)


def judged(
    champion: np.ndarray,
    challenger: np.ndarray,
    groups: list[str] = GROUPS,
    targets: np.ndarray = TARGETS,
    margins: Margins = USUAL,
) -> dict[str, Finding]:
    scores = [classification_scores(targets, one, CLASSES) for one in (challenger, champion)]
    drawn, resampling = bootstrap({"group": groups})
    found = comparison(CHAMPION, targets, (challenger, champion), (scores[0], scores[1]), drawn)
    support = {name: one.support for name, one in scores[0].per_class.items()}
    return {one.rule: one for one in non_inferiority(found, resampling, support, margins)}


def verdicts(found: dict[str, Finding]) -> dict[str, str]:
    return {rule: one.verdict for rule, one in found.items()}


def test_an_equal_model_passes_overall_and_for_each_class() -> None:
    found = judged(spoilt(0.1), spoilt(0.1))
    assert set(verdicts(found).values()) == {"passed"}
    assert set(found) == {"macro-F1", "recall of good", "recall of open", "recall of short"}
    assert found["macro-F1"].value == pytest.approx(-3.69 / 600, rel=0.05)


def test_an_equal_model_on_few_images_is_refused_for_want_of_evidence() -> None:
    few = np.arange(600) < 120
    groups = [name for name, kept in zip([f"board-{i // 4}" for i in range(600)], few, strict=True) if kept]
    found = judged(TARGETS[few], TARGETS[few], groups, TARGETS[few])
    assert verdicts(found) == {
        "macro-F1": "refused",
        "recall of good": "not judged",
        "recall of open": "not judged",
        "recall of short": "not judged",
    }
    assert "no image is lost, but they are too few to show more" in found["macro-F1"].measured
    assert "none is lost, yet so few show no more than -0.08" in found["recall of good"].measured
    assert set(
        verdicts(judged(TARGETS[few], TARGETS[few], groups, TARGETS[few], Margins(macro_f1=0.1, recall=0.1))).values()
    ) == {"passed"}
    one_lost = np.where(np.arange(120) == 5, (TARGETS[few] + 1) % 3, TARGETS[few])
    assert verdicts(judged(TARGETS[few], one_lost, groups, TARGETS[few]))["recall of short"] == "refused"


def test_a_worse_model_is_refused_and_told_by_how_much() -> None:
    found = judged(spoilt(0.05), spoilt(0.15, seed=1))["macro-F1"]
    assert found.verdict == "refused"
    assert found.value is not None
    assert found.value < found.bound == -0.01
    assert found.line.startswith("macro-F1: 0.9")
    assert f"between {found.value:+.4f} and -0.0" in found.line
    assert found.line.endswith("; must be wholly above -0.01")


def test_a_better_model_passes_although_it_errs_elsewhere() -> None:
    assert judged(spoilt(0.15), spoilt(0.02, seed=1))["macro-F1"].verdict == "passed"


def test_a_model_that_may_as_well_be_worse_is_refused_until_the_margin_allows_it() -> None:
    champion, challenger = spoilt(0.05), spoilt(0.05, seed=1)
    assert judged(champion, challenger)["macro-F1"].verdict == "refused"
    assert judged(champion, challenger, margins=Margins(macro_f1=0.1))["macro-F1"].verdict == "passed"


def test_one_class_that_gets_worse_is_refused_even_where_the_whole_gets_better() -> None:
    challenger = np.where(TARGETS == 2, spoilt(0.15, of=2, seed=1), TARGETS)
    found = verdicts(judged(spoilt(0.15, of=0), challenger, margins=Margins(macro_f1=0.05)))
    assert found == {
        "macro-F1": "passed",
        "recall of good": "passed",
        "recall of open": "passed",
        "recall of short": "refused",
    }


def test_too_few_groups_are_refused_for_want_of_evidence_however_good_the_model() -> None:
    found = judged(spoilt(0.2), spoilt(0), groups=[f"lot-{i % 3}" for i in range(600)])
    assert verdicts(found) == {"macro-F1": "refused"}
    assert "there is no interval to judge it by: group has 3 values" in found["macro-F1"].measured


def test_a_class_in_too_few_groups_to_average_is_refused_for_want_of_evidence() -> None:
    targets = np.where(np.arange(600) < 12 * 4, 2, np.arange(600) % 2)
    found = judged(targets, targets, targets=targets)
    assert verdicts(found) == {"macro-F1": "refused"}
    assert found["macro-F1"].measured.endswith(": short in fewer than 5 values of group")


@pytest.mark.parametrize("few", [MIN_CLASS_IMAGES - 1, 0])
def test_a_class_of_few_images_is_not_judged_by_itself(few: int) -> None:
    keep = (TARGETS != 2) | (np.cumsum(TARGETS == 2) <= few)
    groups = [name for name, kept in zip(GROUPS, keep, strict=True) if kept]
    champion, challenger = TARGETS[keep], spoilt(0.9, of=2)[keep]
    found = judged(champion, challenger, groups, TARGETS[keep], Margins(macro_f1=1))
    assert verdicts(found).get("recall of short", "absent") == ("not judged" if few else "absent")


def test_a_class_in_few_groups_is_not_judged_by_itself() -> None:
    targets = np.where(np.arange(600) < 12 * 5, 2, np.arange(600) % 2)
    found = judged(targets, targets, targets=targets)
    assert verdicts(found)["recall of short"] == "not judged"
    assert found["recall of short"].limit == "from 20 images in 10 groups on"


def test_several_labels_an_image_are_judged_class_by_class() -> None:
    random = np.random.default_rng(0)
    targets = (random.random((600, 3)) < 0.4).astype(np.float32)
    challenger = targets.copy()
    challenger[random.random(600) < 0.3, 1] = 0
    drawn, resampling = bootstrap({"group": GROUPS})
    scores = [multi_label_scores(targets, one, CLASSES) for one in (challenger, targets)]
    found = comparison(CHAMPION, targets, (challenger, targets), (scores[0], scores[1]), drawn)
    support = {name: one.support for name, one in scores[0].per_class.items()}
    refused = [one.rule for one in non_inferiority(found, resampling, support, Margins()) if one.verdict == "refused"]
    assert refused == ["macro-F1", "recall of open"]


def test_models_of_other_classes_cannot_be_compared() -> None:
    assert same_task(CLASSES, CLASSES, same_kind=True) is None
    other = same_task(("good", "open"), CLASSES, same_kind=True)
    assert other is not None
    assert other.line == (
        "same classes: the champion knows good, open; must be those of the challenger: good, open, short"
    )
    several = same_task(CLASSES, CLASSES, same_kind=False)
    assert several is not None
    assert several.verdict == "refused"


def test_a_policy_that_promoting_would_lose_is_told() -> None:
    own = Policy(accept_classes=("good",), temperature=1.2)
    assert policy_change(own, own.model_copy(update={"temperature": 0.8, "fitted_on": "val"})) == []
    costs = Costs(missed_defect=200, false_alarm=5, human_look=1, missed={"open": 500})
    (found,) = policy_change(own.model_copy(update={"costs": costs}), Policy(review_below=0.7))
    assert (found.rule, found.verdict) == ("policy", "reported")
    assert found.measured == (
        "differs from the champion's: costs: missed defect 200, false alarm 5, human look 1, missed open 500 -> none; "
        "review_below: 0.5 -> 0.7; accept_classes: good -> none"
    )


def test_parity_is_refused_beyond_the_tolerance_and_without_a_self_test() -> None:
    assert parity(SelfTestFigures(8, 0.001, 0.002, None)).verdict == "passed"
    broken = parity(SelfTestFigures(8, 0.31, 0.002, None))
    assert (broken.verdict, broken.value, broken.bound) == ("refused", 0.31, 0.002)
    assert "selftest/3: no file" in parity(SelfTestFigures(8, 1, 0.002, "selftest/3: no file")).measured
    assert parity(None).line == "preprocessing parity: the bundle has no self-test; must be one, from training"


def test_latency_is_held_to_the_stricter_of_factor_and_bound() -> None:
    def found(challenger_ms: float, champion_ms: float | None, max_latency_ms: float | None = None) -> Finding | None:
        return latency(challenger_ms, champion_ms, Margins(latency_factor=2, max_latency_ms=max_latency_ms))

    assert found(5, None) is None
    for figures, bound in (
        ((19, 10), 20),
        ((21, 10), 20),
        ((14, 10, 15), 15),
        ((16, 10, 15), 15),
        ((16, None, 15), 15),
    ):
        one = found(*figures)
        assert one is not None
        assert (one.bound, one.verdict) == (bound, "passed" if figures[0] <= bound else "refused")


def test_report_lists_what_refuses_and_survives_json() -> None:
    refusal = Finding(rule="latency", verdict="refused", measured="9 ms", limit="at most 3 ms", value=9, bound=3)
    report = GateReport(
        challenger=CHAMPION,
        champion=None,
        manifest="m.parquet",
        manifest_digest="0" * 64,
        split="test",
        num_images=10,
        left_out={},
        resampling=None,
        margins=Margins(),
        findings=(no_champion("there is none yet"), refusal),
        near_duplicates=(),
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    assert report.refused == (refusal,)
    assert GateReport.model_validate_json(report.model_dump_json()) == report
