"""Which part an image plays, train, val or test: decided by its group alone, so that no group straddles two."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from glint.core.errors import GlintError

SPLITS = ("train", "val", "test")
VAL_SHARE = 0.1
TEST_SHARE = 0.1
MENDING = "--val-groups and --test-groups"


@dataclass(frozen=True)
class SplitRule:
    """How groups are dealt out to the splits.

    None named: by the hash of the group, 80/10/10; a group stays where it is however much data joins it. Both val and
    test named: every other group is train. One of them named: the others are dealt by hash over the two that are left,
    in the same proportion.
    """

    val_groups: tuple[str, ...] = ()
    test_groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        both = sorted(set(self.val_groups) & set(self.test_groups))
        if both:
            raise GlintError(f"--val-groups and --test-groups both name {listed(both)}: a group has one split")

    @property
    def named(self) -> bool:
        """Whether a person chose any group."""
        return bool(self.val_groups or self.test_groups)

    def split(self, group: str) -> str:
        """train, val or test."""
        if group in self.val_groups:
            return "val"
        if group in self.test_groups:
            return "test"
        return self._dealt(group)

    def _dealt(self, group: str) -> str:
        val_share = 0.0 if self.val_groups else VAL_SHARE
        test_share = 0.0 if self.test_groups else TEST_SHARE
        train_share = 1.0 - VAL_SHARE - TEST_SHARE
        place = hash_share(group) * (train_share + val_share + test_share)
        if place < train_share:
            return "train"
        return "val" if place < train_share + val_share else "test"

    def describe(self) -> dict[str, Any]:
        """The rule as a manifest's footer keeps it."""
        return {
            "val_share": VAL_SHARE,
            "test_share": TEST_SHARE,
            "val_groups": list(self.val_groups),
            "test_groups": list(self.test_groups),
        }


def hash_share(group: str) -> float:
    """A number in [0, 1) that depends on the group's name alone."""
    return int.from_bytes(hashlib.sha256(group.encode()).digest()[:6], "big") / 2**48


def check_splits(
    counts: Mapping[str, Mapping[str, int]],
    classes: Sequence[str],
    rule: SplitRule,
    groups_of: Callable[[str | None], Sequence[str]],
) -> list[str]:
    """Raise GlintError where a split is empty or lacks a class; `counts` is by split, then class.

    `groups_of` gives the groups that hold a class (None = any), or nothing when each image is its own group. Where a
    person named the groups, val and test may lack a class, for some classes have too few groups: those are returned,
    a line each, as warnings.
    """
    warnings = []
    for split in SPLITS:
        lacking = [name for name in classes if not counts.get(split, {}).get(name)]
        if not lacking:
            continue
        complaint = _complaint(split, lacking, empty=len(lacking) == len(classes), groups_of=groups_of)
        if split == "train" or not rule.named or len(lacking) == len(classes):
            raise GlintError(f"{complaint}; {_mending(bool(groups_of(None)))}")
        warnings.append(complaint)
    return warnings


def _complaint(
    split: str, lacking: Sequence[str], *, empty: bool, groups_of: Callable[[str | None], Sequence[str]]
) -> str:
    if empty:
        groups, problem = groups_of(None), f"split {split} is empty"
        return f"{problem} (the groups are {listed(groups)})" if groups else problem
    groups, problem = groups_of(lacking[0]), f"split {split} has no image of class {listed(lacking)}"
    return f"{problem} ({lacking[0]} lies in groups {listed(groups)})" if groups else problem


def _mending(grouped: bool) -> str:
    if grouped:
        return f"choose the groups of each split with {MENDING}"
    return f"name a column of the label file with --group, and its groups with {MENDING}"


def listed(names: Sequence[str], most: int = 10) -> str:
    """The names, separated by commas, the first few when there are many."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
