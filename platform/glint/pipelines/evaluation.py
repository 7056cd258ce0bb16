"""What an evaluation found: the scores of one split, and the images behind them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from glint.core.bootstrap import Bootstrap, Resampling, ScoreIntervals, bootstrap
from glint.core.calibration import Calibration, calibration
from glint.core.comparison import Comparison, comparison
from glint.core.coverage import Coverage, coverage
from glint.core.decisions import Decisions, decisions
from glint.core.label_errors import label_errors, presence_errors
from glint.core.metrics import Scores, average_precisions, classification_scores, multi_label_scores, roc_areas
from glint.core.outcome import ModelRef
from glint.core.policy import PRESENT_FROM, Policy
from glint.core.slices import Slices, slices

Array = np.ndarray[Any, np.dtype[Any]]

NOBODY, NO_IMAGE = "no other model was named", "no image could be scored by both models"
"""Why there is no comparison."""
MAX_LABEL_ERRORS = 200
"""Suspected labels that report.json lists; it counts the others."""


class LabelError(BaseModel):
    """An image whose label is probably wrong; `score` in 0..1, the lower the likelier (see `label_errors`)."""

    model_config = ConfigDict(frozen=True)

    uri: str
    given: str
    suggested: str
    score: float


class Evaluation(Scores):
    """report.json: the scores, how far they may be luck, and what was scored on what."""

    model: ModelRef
    manifest: str
    manifest_digest: str
    split: str
    left_out: dict[str, int] = Field(description="images that could not be scored, by reason; not in any figure")
    resampling: Resampling
    intervals: ScoreIntervals | None = Field(description="95 % intervals; None where nothing could be resampled")
    roc_auc: dict[str, float | None] = Field(description="by class, one against the rest")
    average_precision: dict[str, float | None] = Field(description="by class, one against the rest")
    calibration: Calibration
    coverage: Coverage
    decisions: Decisions
    slices: Slices
    num_label_errors: int
    label_errors: tuple[LabelError, ...] = Field(description="suspected ones, the likeliest first")
    comparison: Comparison | None
    not_compared: str | None = Field(description="why there is no comparison")
    created_at: datetime = Field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True)
class Subject:
    """What was scored: the model, its decision policy, and the split of a manifest."""

    model: ModelRef
    policy: Policy
    manifest: str
    manifest_digest: str
    split: str


@dataclass
class ScoredSplit:
    """Every labelled image of a split that could be scored, in the manifest's order; and those left out."""

    uris: list[str]
    targets: Array
    """Class indices (N,), or 0/1 (N, C) of a multi-label model."""
    probabilities: Array
    """(N, C), calibrated: as they are served."""
    raw: Array
    """(N, C), uncalibrated."""
    columns: dict[str, list[str | None]] = field(default_factory=dict)
    """The values by image of `group` and of the manifest's further columns."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Reason by uri."""

    @property
    def multi_label(self) -> bool:
        """Whether an image has any number of labels."""
        return self.targets.ndim == 2

    @property
    def predicted(self) -> Array:
        """Class indices (N,), or 0/1 (N, C)."""
        if self.multi_label:
            return (self.probabilities >= PRESENT_FROM).astype(self.targets.dtype)
        return np.asarray(self.probabilities.argmax(1))

    @property
    def correct(self) -> Array:
        """Whether the model was right (N,); of several labels, in all of them."""
        same = np.equal(self.predicted, self.targets)
        return np.asarray(same.all(1) if self.multi_label else same)

    @property
    def confidence(self) -> Array:
        """How sure the model is (N,): of its class; of several labels, of the one that it is least sure of."""
        shares = self.probabilities
        return np.asarray(np.maximum(shares, 1 - shares).min(1) if self.multi_label else shares.max(1))

    def take(self, rows: Sequence[int]) -> ScoredSplit:
        """The images with these numbers."""
        chosen = np.asarray(rows, dtype=np.int64)
        return replace(
            self,
            uris=[self.uris[i] for i in chosen],
            targets=self.targets[chosen],
            probabilities=self.probabilities[chosen],
            raw=self.raw[chosen],
            columns={name: [values[i] for i in chosen] for name, values in self.columns.items()},
        )


def assess(
    scored: ScoredSplit,
    classes: tuple[str, ...],
    subject: Subject,
    against: tuple[ModelRef, ScoredSplit] | None = None,
    not_compared: str | None = None,
) -> Evaluation:
    """Everything that a report says about a scored split of at least one image."""
    drawn, resampling = bootstrap(scored.columns)
    suspects = suspected_labels(scored, classes)
    compared = compare(scored, classes, *against) if against else None
    return Evaluation(
        **dict(scores_of(scored, classes)),
        model=subject.model,
        manifest=subject.manifest,
        manifest_digest=subject.manifest_digest,
        split=subject.split,
        left_out=dict(Counter(scored.left_out.values())),
        resampling=resampling,
        intervals=drawn.scores(scored.targets, scored.predicted, classes) if drawn else None,
        roc_auc=dict(zip(classes, roc_areas(scored.targets, scored.probabilities), strict=True)),
        average_precision=dict(zip(classes, average_precisions(scored.targets, scored.probabilities), strict=True)),
        calibration=calibration(
            scored.raw, scored.probabilities, scored.targets, subject.policy.temperature, subject.policy.fitted_on
        ),
        coverage=coverage(scored.confidence, scored.correct),
        decisions=decisions(subject.policy, scored.probabilities, scored.targets, classes, drawn),
        slices=slices(scored.columns, scored.correct, drawn),
        num_label_errors=len(suspects),
        label_errors=tuple(suspects[:MAX_LABEL_ERRORS]),
        comparison=compared,
        not_compared=None if compared else not_compared or (NOBODY if against is None else NO_IMAGE),
    )


def scores_of(scored: ScoredSplit, classes: tuple[str, ...]) -> Scores:
    """The scores of a split of at least one image."""
    if scored.multi_label:
        return multi_label_scores(scored.targets, scored.probabilities, classes)
    return classification_scores(scored.targets, scored.predicted, classes)


def suspected_labels(scored: ScoredSplit, classes: tuple[str, ...]) -> list[LabelError]:
    """The labels that are probably wrong, the likeliest first; of several labels an image, each by itself."""
    if not scored.multi_label:
        return [
            LabelError(
                uri=scored.uris[one.index], given=classes[one.given], suggested=classes[one.suggested], score=one.score
            )
            for one in label_errors(scored.probabilities, scored.targets)
        ]
    return [
        LabelError(
            uri=scored.uris[one.index],
            given=_presence(classes[label], one.given),
            suggested=_presence(classes[label], one.suggested),
            score=one.score,
        )
        for label, one in presence_errors(scored.probabilities, scored.targets)
    ]


def compare(
    scored: ScoredSplit, classes: tuple[str, ...], other: ModelRef, scored_by_other: ScoredSplit
) -> Comparison | None:
    """Compare with another model on the images that both could score; None where there is no such image."""
    rows = {uri: i for i, uri in enumerate(scored_by_other.uris)}
    both = [(i, rows[uri]) for i, uri in enumerate(scored.uris) if uri in rows]
    if not both:
        return None
    mine, others = scored.take([i for i, _ in both]), scored_by_other.take([i for _, i in both])
    drawn: Bootstrap | None = bootstrap(mine.columns)[0]
    sides = (scores_of(mine, classes), scores_of(others, classes))
    return comparison(other, mine.targets, (mine.predicted, others.predicted), sides, drawn)


def _presence(name: str, present: int) -> str:
    return name if present else f"not {name}"
