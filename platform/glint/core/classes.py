"""Class names: their one order, and what a valid set of them is."""

from __future__ import annotations

from collections.abc import Iterable

from glint.core.errors import GlintError


def class_order(labels: Iterable[str]) -> tuple[str, ...]:
    """The distinct labels, sorted: the index of a class in every tensor, table and report.

    Derived once, when a manifest is written, and stored with it.
    """
    return tuple(sorted(set(labels)))


def class_index(classes: tuple[str, ...]) -> dict[str, int]:
    """Map each class name to its index; raises GlintError unless there are at least two, all distinct."""
    index = {name: position for position, name in enumerate(classes)}
    if len(index) < 2 or len(index) != len(classes):
        raise GlintError(f"classes must be at least two distinct names, got {list(classes)}")
    return index
