"""How long work tells of itself; the command line draws it, a program may leave it silent."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the progress of one stage at a time."""

    def begin(self, stage: str, total: int | None, unit: str) -> None:
        """A stage starts; `total` in `unit`, None where it is not known beforehand."""

    def update(self, done: int, note: str = "") -> None:
        """So much of the stage is done, counted from its start; `note` is shown beside it."""

    def end(self) -> None:
        """The stage is over."""

    def say(self, line: str) -> None:
        """A line that stays: what was skipped and why, or what came out."""


class Silent:
    """Progress that nobody watches."""

    def begin(self, stage: str, total: int | None, unit: str) -> None:
        """Nothing."""

    def update(self, done: int, note: str = "") -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""

    def say(self, line: str) -> None:
        """Nothing."""
