import numpy as np
import pytest

from glint.core.bootstrap import bootstrap
from glint.core.engine_choice import changed_bound, hopeless_int8, judge_bf16, judge_int8
from glint.core.engines import check_engine
from glint.core.errors import GlintError
from glint.core.gate import Finding


def groups(number: int) -> dict[str, list[str | None]]:
    return {"group": [f"lot {i}" for i in range(number)]}


def test_no_change_in_few_groups_is_no_proof() -> None:
    """0 of 300 may still be 1.2%; 0 of 400 is less than 1% for certain."""
    for number, accepted in ((300, False), (400, True)):
        drawn, _ = bootstrap(groups(number))
        unchanged = np.zeros(number, dtype=bool)
        trial = judge_int8(unchanged, changed_bound(unchanged, drawn), [])
        assert trial.accepted is accepted
        assert (trial.num_images, trial.num_changed) == (number, 0)


@pytest.mark.parametrize(("num_changed", "exact"), [(0, 0.00918), (1, 0.01385), (2, 0.01794)])
def test_few_changes_are_bound_as_exactly_as_none(num_changed: int, exact: float) -> None:
    """Clopper and Pearson's upper ends for 400 groups of one image; the bootstrap says 0.75% for a single change."""
    drawn, _ = bootstrap(groups(400))
    bound = changed_bound(np.arange(400) < num_changed, drawn)
    assert bound == pytest.approx(exact, abs=1e-5)


def test_changes_in_one_group_count_as_one_group_and_no_fewer_images() -> None:
    """Two of a lot's four images changed: 1 of 400 groups, 1.39%; all of eight lots: the bootstrap's 3.5% is more."""
    lots = {"group": [f"lot {i // 4}" for i in range(1600)]}
    drawn, _ = bootstrap(lots)
    assert changed_bound(np.arange(1600) < 2, drawn) == pytest.approx(0.01385, abs=1e-5)
    bound = changed_bound(np.arange(1600) < 32, drawn)
    assert bound is not None
    assert bound > 0.03


@pytest.mark.parametrize(("number", "tried"), [(3, False), (367, False), (368, True)])
def test_8_bits_are_tried_only_where_enough_could_be_shown(number: int, tried: bool) -> None:
    drawn, _ = bootstrap(groups(number))
    hopeless = hopeless_int8(drawn)
    assert (hopeless is None) is tried
    assert hopeless is None or f"{'fewer than 20' if number == 3 else number} groups" in hopeless.reason
    bound = changed_bound(np.zeros(number, dtype=bool), drawn)
    assert (bound is not None and bound < 0.01) is tried


def test_too_few_groups_bound_nothing() -> None:
    drawn, _ = bootstrap(groups(3))
    bound = changed_bound(np.zeros(3, dtype=bool), drawn)
    assert bound is None
    assert "too few groups" in judge_int8(np.zeros(3, dtype=bool), bound, []).reason


def test_a_class_that_loses_keeps_8_bits_out() -> None:
    lost = Finding(rule="non-inferiority of open", verdict="refused", measured="may lose 3 points")
    trial = judge_int8(np.zeros(500, dtype=bool), 0.008, [lost])
    assert not trial.accepted
    assert "may lose 3 points" in trial.reason


def test_bfloat16_may_change_less_than_one_image_in_a_hundred() -> None:
    changed = np.arange(1000) < 9
    assert judge_bf16(changed, None).accepted
    assert not judge_bf16(np.arange(1000) < 10, None).accepted


def test_an_unknown_engine_is_told_with_those_that_there_are() -> None:
    with pytest.raises(GlintError, match="--engine 'tensorrt' must be one of auto, openvino, torch"):
        check_engine("tensorrt")
