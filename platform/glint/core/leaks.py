"""What a split shares with the images that training saw: groups, bytes, looks; and what the gate says of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from glint.core.duplicates import NEAR_BITS, NUM_BITS
from glint.core.finding import Finding, Verdict
from glint.core.splits import listed

MIN_COMPARED = 0.9
"""Of the images of the split, and of training's: with fewer that can be read, that none are identical is not shown."""
NO_TRAINING = "not judged: no training image is known"


class NearDuplicate(BaseModel):
    """An image of the split, the training image that looks most like it, and in how many bits their hashes differ."""

    model_config = ConfigDict(frozen=True)

    uri: str
    training_uri: str
    bits: int


class Leaks(NamedTuple):
    """What the split shares with the images that training saw, of those that could be read on both sides."""

    groups: Sequence[str]
    identical: Sequence[tuple[str, str]]
    near: Sequence[NearDuplicate]
    num_images: int
    num_read: int
    num_training: int
    num_training_read: int
    unreadable: int
    """Images on both sides that could not be read, or not decoded."""
    read_of_manifests: Sequence[tuple[int, int]] = ()
    """Of each of the manifests that training data are from: images that could be read, and all."""
    other_groups: Sequence[str] = ()
    """Columns that training data are split by, where that is not the split's and they have no such column."""

    @property
    def compared(self) -> bool:
        """Whether enough images could be read on both sides to say that none are the same."""
        sides = ((self.num_read, self.num_images), (self.num_training_read, self.num_training))
        parts = [(read, number) for read, number in self.read_of_manifests if number]
        return all(read and read >= MIN_COMPARED * number for read, number in (*sides, *parts))


def leakage(leaks: Leaks, absent: Sequence[str] = (), foreign: Sequence[str] = ()) -> list[Finding]:
    """Shared groups and identical bytes refuse; images that only look alike are reported, for good boards do.

    What could not be compared is never passed: where fewer than MIN_COMPARED of the images can be read, or without the
    manifest of a training that the model comes from, the gate refuses.

    absent: why a manifest that the model, or one that it began with, was trained on is not at hand. foreign: files of
    weights that training began with, of which nothing is known.
    """
    identical, near = len(leaks.identical), len(leaks.near)
    read = f"{leaks.num_read:,} of {leaks.num_images:,} images"
    read += f" and {leaks.num_training_read:,} of {leaks.num_training:,} of training could be read"
    twins = [f"{uri} = {other}" for uri, other in leaks.identical]
    found = f"{identical:,} of {leaks.num_read:,} are in training too, byte for byte"
    findings = [
        _shared_groups(leaks, bool(absent)),
        Finding(
            rule="identical images",
            verdict=_leak_verdict(identical, leaks.compared, bool(absent)),
            measured=(f"{found}: {listed(twins, 1)}" if identical else found) + f" ({read})"
            if identical or leaks.compared
            else _not_compared(leaks, read),
            limit="0" if identical or leaks.compared else f"at least {MIN_COMPARED:.0%}, to show that there are none",
            value=identical,
            bound=0,
        ),
        Finding(
            rule="near-duplicates",
            verdict="reported",
            measured=f"{near:,} of {leaks.num_read:,} look like one of {leaks.num_training_read:,} training images",
            limit=f"(at most {NEAR_BITS} of {NUM_BITS} bits of the perceptual hash apart)",
            value=near,
        ),
    ]
    if leaks.unreadable:
        told = f"{leaks.unreadable:,} images could not be compared with training, for they cannot be read"
        findings.append(Finding(rule="unreadable", verdict="reported", measured=told))
    if absent:
        limit = "at hand: nothing else shows that training has not seen the split"
        findings.append(Finding(rule="training data", verdict="refused", measured=listed(absent, 3), limit=limit))
    if foreign:
        told = f"training began with {listed(foreign, 3)}; what that had learned from is not known"
        findings.append(Finding(rule="first weights", verdict="reported", measured=told))
    return findings


def _not_compared(leaks: Leaks, read: str) -> str:
    if not leaks.num_training:
        return NO_TRAINING
    worst = min(leaks.read_of_manifests, key=lambda part: part[0] / max(part[1], 1), default=None)
    of = f"; of one manifest {worst[0]:,} of {worst[1]:,}" if worst and len(leaks.read_of_manifests) > 1 else ""
    return f"not judged, for less than {MIN_COMPARED:.0%} could be read: {read}{of}"


def _shared_groups(leaks: Leaks, absent: bool) -> Finding:
    number = len(leaks.groups)
    measured = f"{number:,} are in training too" + (f": {listed(leaks.groups, 3)}" if number else "")
    if leaks.other_groups and not number:
        measured = (
            f"not judged: training data are grouped by {listed(leaks.other_groups, 3)}, the split by another column"
        )
    return Finding(
        rule="shared groups",
        verdict="refused" if leaks.other_groups else _leak_verdict(number, bool(leaks.num_training), absent),
        measured=measured if leaks.num_training else NO_TRAINING,
        limit="0",
        value=number,
        bound=0,
    )


def _leak_verdict(found: int, compared: bool, absent: bool) -> Verdict:
    if found or not compared:
        return "refused"
    return "not judged" if absent else "passed"
