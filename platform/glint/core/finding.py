"""What a rule of the gate, or of the choice of an engine, found."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Verdict = Literal["passed", "refused", "not judged", "reported"]


class Finding(BaseModel):
    """What one rule found: `measured` against `limit`, in words, and as numbers where it comes down to two."""

    model_config = ConfigDict(frozen=True)

    rule: str
    verdict: Verdict
    measured: str
    limit: str = ""
    value: float | None = None
    bound: float | None = None

    @property
    def line(self) -> str:
        """Why it refuses, in one line."""
        return f"{self.rule}: {self.measured}" + (f"; must be {self.limit}" if self.limit else "")
