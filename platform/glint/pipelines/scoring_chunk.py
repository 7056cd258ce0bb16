"""A chunk that a scoring process is asked for, and what is known of its rows: which are suspects, which have a verdict.

A row that was suspected once is scored alone until the chunk is done, and where suspects were found several times, so
is every row: each end of a process leaves fewer rows that could cause the next one.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass, field

from glint.core.job_options import JobOptions
from glint.pipelines.chunk_answers import Decoded, Written
from glint.pipelines.in_flight import InFlight

MAX_OVERRUNS = 4
"""Of one chunk, after which whatever has not ended is timed out, also what would be tried alone."""

MAX_ROUNDS = 3
"""Of new suspects in one chunk, after which all of it is: its images may be bad for each other, or many of them bad."""

Verdict = tuple[str, str, str]
"""Status, type and message of an ImageError."""


@dataclass
class AskedChunk:
    """Belongs to the watchdog's thread, but for `written`."""

    number: int
    num_rows: int
    options: JobOptions
    slot: int
    """its place in the memory that is shared with the process"""
    rows: InFlight
    """what the present process has begun and ended"""
    written: Future[Written | Decoded] = field(default_factory=Future)
    out_since: float | None = None
    spent_s: float = 0.0
    """with processes that are gone, since it last overran"""
    suspects: set[int] = field(default_factory=set)
    """rows that are scored alone"""
    tries: Counter[int] = field(default_factory=Counter)
    rounds: int = 0
    overruns: int = 0
    idle_deaths: int = 0
    verdicts: dict[int, Verdict] = field(default_factory=dict)
    """of rows that are scored no more"""

    @property
    def doubtful(self) -> bool:
        """Whether nothing else may be scored beside it now."""
        return bool(self.suspects) and not self.suspects <= self.rows.ended()

    def question(self) -> bytes:
        """What the process is asked."""
        return json.dumps([self.number, self.slot, sorted(self.suspects), self.verdicts]).encode()

    def returned(self) -> None:
        """The process is gone, and with it what it had done of this."""
        self.spent_s, self.out_since = self._out_s(time.monotonic()), None
        self.rows.clear()

    def died(self, cause: str) -> None:
        """Doubt what was in flight when the process died."""
        self._suspect(
            set(self.rows.since()), ("failed", "process_died", f"the process that scored this image alone {cause}")
        )

    def overran(self, now: float) -> bool:
        """Whether an image or the whole has taken too long; those responsible are suspects then, or have a verdict."""
        limit, in_flight = self.options.item_timeout_s, self.rows.since()
        if late := {row for row, since in in_flight.items() if now - since > limit}:
            self._suspect(late, ("timed_out", "item_timeout", f"took longer than item_timeout_s {limit:g}, also alone"))
            return True
        # Without an image in flight it is being written, and the store has a deadline of its own.
        if in_flight and self._out_s(now) > self.options.mini_batch_timeout_s:
            self._doubt_all(set(in_flight))
            self.spent_s, self.out_since = 0.0, None
            return True
        return False

    def _out_s(self, now: float) -> float:
        """How long it was out, with this process and those before, since it last overran."""
        return self.spent_s + (0.0 if self.out_since is None else now - self.out_since)

    def _doubt_all(self, in_flight: set[int]) -> None:
        """Doubt what holds it up: the image that is tried alone, or all in flight, and at last all that is left."""
        limit = f"mini_batch_timeout_s {self.options.mini_batch_timeout_s:g}"
        self.overruns += 1
        if self.overruns == 1 or (in_flight & self.suspects and self.overruns < MAX_OVERRUNS):
            self._suspect(in_flight, ("timed_out", "mini_batch_timeout", f"took longer than {limit}, also alone"))
            return
        said = f"not reached within {limit} of its mini-batch, {self.overruns} times"
        for row in set(range(self.num_rows)) - self.rows.ended():
            self._convict(row, ("timed_out", "mini_batch_timeout", said))

    def _suspect(self, rows: set[int], verdict: Verdict) -> None:
        """Doubt these rows; one that was tried alone often enough has its verdict."""
        for row in rows & self.suspects:
            self.tries[row] += 1
            if self.tries[row] >= self.options.max_retries:
                self._convict(row, verdict)
        if unknown := rows - self.suspects - set(self.verdicts):
            self.rounds += 1
            every = set(range(self.num_rows)) - set(self.verdicts)
            self.suspects |= unknown if self.rounds < MAX_ROUNDS else every

    def _convict(self, row: int, verdict: Verdict) -> None:
        self.suspects.discard(row)
        self.verdicts.setdefault(row, verdict)
