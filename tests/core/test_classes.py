"""Class names have one order, and are at least two."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glint.core.classes import class_index, class_order
from glint.core.errors import GlintError


@given(st.lists(st.text()), st.randoms())
def test_order_does_not_depend_on_the_order_or_number_of_the_labels(labels: list[str], chance: Random) -> None:
    shuffled = labels * 2
    chance.shuffle(shuffled)
    assert class_order(shuffled) == class_order(labels)


def test_order_is_sorted() -> None:
    assert class_order(["short", "good", "open", "good"]) == ("good", "open", "short")


def test_index_is_the_place_in_the_order() -> None:
    assert class_index(("good", "open", "short")) == {"good": 0, "open": 1, "short": 2}


@pytest.mark.parametrize("classes", [(), ("good",), ("good", "good"), ("good", "open", "good")])
def test_fewer_than_two_or_repeated_classes_are_refused(classes: tuple[str, ...]) -> None:
    with pytest.raises(GlintError, match="classes must be at least two distinct names, got"):
        class_index(classes)
