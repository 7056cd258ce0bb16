"""Splits by group."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glint.core.errors import GlintError
from glint.core.splits import SPLITS, SplitRule, check_splits, hash_share, listed

GROUPS = [f"board-{number}" for number in range(10_000)]


def no_groups(label: str | None) -> list[str]:
    return []


def two_groups(label: str | None) -> list[str]:
    return ["lot-1", "lot-2"]


def test_groups_are_dealt_80_10_10():
    counts = Counter(SplitRule().split(group) for group in GROUPS)
    assert 7800 < counts["train"] < 8200
    assert 900 < counts["val"] < 1100
    assert 900 < counts["test"] < 1100


def test_a_group_stays_where_it_was_in_every_version():
    dealt = {split: [group for group in GROUPS if SplitRule().split(group) == split][:3] for split in SPLITS}
    assert dealt == {
        "train": ["board-0", "board-1", "board-2"],
        "val": ["board-9", "board-11", "board-25"],
        "test": ["board-26", "board-38", "board-49"],
    }


@given(st.text())
def test_any_name_of_a_group_has_a_place(group):
    assert 0 <= hash_share(group) < 1


def test_with_val_and_test_named_all_others_are_for_training():
    rule = SplitRule(val_groups=("board-1",), test_groups=("board-2", "board-3"))
    assert [rule.split(group) for group in ("board-1", "board-2", "board-3")] == ["val", "test", "test"]
    assert {rule.split(group) for group in GROUPS[4:]} == {"train"}


@pytest.mark.parametrize(
    ("rule", "named", "other"),
    [(SplitRule(test_groups=("board-1",)), "test", "val"), (SplitRule(val_groups=("board-1",)), "val", "test")],
)
def test_with_one_split_named_the_others_keep_their_proportion(rule, named, other):
    counts = Counter(rule.split(group) for group in GROUPS)
    assert counts[named] == 1
    assert 1000 < counts[other] < 1230
    assert counts["train"] + counts[other] == len(GROUPS) - 1


def test_naming_the_test_moves_no_group_out_of_training():
    rule = SplitRule(test_groups=("board-1",))
    trained = [group for group in GROUPS[2:] if SplitRule().split(group) == "train"]
    assert {rule.split(group) for group in trained} == {"train"}


def test_a_group_named_for_two_splits_is_refused():
    with pytest.raises(GlintError, match="both name lot-1"):
        SplitRule(val_groups=("lot-1",), test_groups=("lot-1", "lot-2"))


def test_splits_that_have_every_class_are_good():
    full = {split: {"good": 1, "open": 2} for split in ("train", "val", "test")}
    assert check_splits(full, ("good", "open"), SplitRule(), no_groups) == []


def test_an_empty_split_names_the_groups_and_the_options_that_mend_it():
    counts = {"train": {"good": 5, "open": 5}, "val": {"good": 1, "open": 1}}
    with pytest.raises(GlintError, match=r"split test is empty \(the groups are lot-1, lot-2\).*--test-groups"):
        check_splits(counts, ("good", "open"), SplitRule(), two_groups)


def test_a_split_without_a_class_says_where_the_class_lies():
    counts = {"train": {"good": 5, "open": 5}, "val": {"good": 1}, "test": {"good": 1, "open": 1}}
    with pytest.raises(
        GlintError, match=r"val has no image of class open \(open lies in groups lot-1, lot-2\).*--val-groups"
    ):
        check_splits(counts, ("good", "open"), SplitRule(), two_groups)


def test_without_groups_the_error_says_how_to_get_some():
    with pytest.raises(
        GlintError, match="val has no image of class open; name a column of the label file with --group"
    ):
        check_splits({"train": {"good": 5, "open": 5}, "val": {"good": 1}}, ("good", "open"), SplitRule(), no_groups)


def test_a_class_missing_from_groups_that_a_person_named_is_a_warning():
    counts = {"train": {"good": 5, "open": 5}, "val": {"good": 1}, "test": {"open": 1}}
    rule = SplitRule(val_groups=("lot-1",), test_groups=("lot-2",))
    warnings = check_splits(counts, ("good", "open"), rule, no_groups)
    assert warnings == ["split val has no image of class open", "split test has no image of class good"]


def test_a_class_that_cannot_be_trained_is_an_error_whoever_chose():
    counts = {"train": {"good": 5}, "val": {"good": 1, "open": 1}, "test": {"good": 1, "open": 1}}
    rule = SplitRule(val_groups=("lot-1",), test_groups=("lot-2",))
    with pytest.raises(GlintError, match="train has no image of class open"):
        check_splits(counts, ("good", "open"), rule, two_groups)


def test_long_lists_of_names_are_cut():
    assert listed(GROUPS, most=2) == "board-0, board-1 and 9,998 more"
