"""What an evaluation found: the scores of one split, and the images behind them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
from pydantic import Field

from glint.core.metrics import Scores
from glint.core.outcome import ModelRef


class Evaluation(Scores):
    """report.json: the scores, and what was scored on what."""

    model: ModelRef
    manifest: str
    manifest_digest: str
    split: str
    left_out: dict[str, int] = Field(description="images that could not be scored, by reason; not in any figure")
    created_at: datetime = Field(default_factory=lambda: datetime.now(UTC))


@dataclass
class ScoredSplit:
    """Every labelled image of a split: addresses, true classes (N,), probabilities (N, C); and those left out."""

    uris: list[str] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    probabilities: list[np.ndarray[Any, Any]] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    """Reason by uri."""

    def add(self, batch: dict[str, np.ndarray[Any, Any]]) -> None:
        """Take in a batch of ScoreRows."""
        for i, uri in enumerate(batch["uri"].tolist()):
            if batch["error_type"][i]:
                self.left_out[uri] = str(batch["error_type"][i])
                continue
            self.uris.append(uri)
            self.targets.append(int(batch["target"][i]))
            self.probabilities.append(batch["probabilities"][i])
