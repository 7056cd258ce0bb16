import numpy as np
import pytest

from glint.core.bootstrap import Bootstrap
from glint.core.intervals import resample
from glint.core.slices import MAX_VALUES, slices

CORRECT = np.array([True, True, False, True, False, False])


def test_each_value_has_its_images_and_accuracy_the_worst_first() -> None:
    found = slices({"camera": ["A", "A", "B", "A", "B", None]}, CORRECT, None)
    assert [(one.value, one.num_images, one.accuracy, one.interval) for one in found.columns["camera"]] == [
        ("B", 2, 0.0, None),
        (None, 1, 0.0, None),
        ("A", 3, 1.0, None),
    ]
    assert found.left_out == {}


def test_columns_that_say_nothing_are_left_out_and_named() -> None:
    many = MAX_VALUES + 1
    lots: list[str | None] = [f"L{i % 2}" for i in range(many)]
    columns: dict[str, list[str | None]] = {
        "group": lots,
        "lot": list(lots),
        "serial": [str(i) for i in range(many)],
        "site": ["x"] * many,
        "note": [None] * many,
    }
    found = slices(columns, np.ones(many, dtype=bool), None)
    assert list(found.columns) == ["group"]
    assert found.left_out == {
        "lot": "the same as group",
        "serial": "31 values, more than 30, and none of them with 10 images",
        "site": "the same for every image",
        "note": "the same for every image",
    }


def test_of_many_values_the_worst_with_enough_images_are_told_and_the_others_counted() -> None:
    boards = [f"B{i // 10:03}" for i in range(400)] + ["small"] * 9
    correct = np.arange(409) % 10 >= np.arange(409) // 10 // 4  # the higher the board, the fewer are right
    found = slices({"board": boards}, correct, None)
    told = found.columns["board"]
    assert len(told) == MAX_VALUES
    assert [told[0].value, told[-1].value] == ["B036", "B009"]
    assert [one.accuracy for one in told] == sorted(one.accuracy for one in told)
    assert "small" not in {one.value for one in told}
    assert found.others == {"board": 41 - MAX_VALUES}
    assert found.left_out == {}


def test_a_slice_has_an_interval_where_enough_groups_are_in_it() -> None:
    codes = np.arange(400) % 40
    camera = ["A" if code < 35 else "B" for code in codes]
    correct = np.random.default_rng(0).random(400) < 0.8
    small, large = sorted(
        slices({"camera": camera}, correct, Bootstrap(codes, resample(40))).columns["camera"],
        key=lambda one: one.num_images,
    )
    assert small.interval is None
    assert large.interval is not None
    assert large.interval.low < large.accuracy < large.interval.high
    assert large.accuracy == pytest.approx(correct[codes < 35].mean())
