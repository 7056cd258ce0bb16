"""What becomes of one image in one job: exactly one Outcome, whatever happened."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, cast, get_args

from pydantic import BaseModel, ConfigDict, Field

from glint.core.errors import ImageError

Status = Literal["ok", "undecodable", "missing", "denied", "changed", "too_large", "timed_out", "failed"]
Decision = Literal["accept", "review", "reject"]
DEFAULT_TOP_K = 5
"""Classes kept with an answer unless more or fewer are asked for."""
STATUSES: tuple[str, ...] = get_args(Status)
DECISIONS: tuple[str, ...] = get_args(Decision)


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Score(_Document):
    """One class and its probability."""

    label: str
    confidence: float = Field(ge=0, le=1)


class OutcomeError(_Document):
    """Why an image has no label: a short snake_case reason and one line for a person."""

    type: str
    message: str


class ModelRef(_Document):
    """Which model and policy made an outcome."""

    name: str | None
    version: str | None
    bundle: str
    policy: str
    engine: str


class Prediction(_Document):
    """What a model says of one image, or why it cannot. All but `status` and `error` are set when `status` is `ok`."""

    status: Status
    labels: tuple[str, ...] = ()
    confidence: float | None = Field(default=None, ge=0, le=1)
    top_k: tuple[Score, ...] = Field(default=(), description="the most probable classes, best first")
    decision: Decision | None = None
    error: OutcomeError | None = None

    @property
    def label(self) -> str | None:
        """The most probable class."""
        return self.labels[0] if self.labels else None


class Outcome(Prediction):
    """One image's result in one job."""

    id: str
    job_id: str
    uri: str
    etag: str | None
    model: ModelRef
    group: str | None = None
    columns: dict[str, Any] = Field(default_factory=dict, description="the manifest's further columns")
    width: int | None = None
    height: int | None = None
    timings_ms: dict[str, float] = Field(default_factory=dict)
    created_at: datetime = Field(default_factory=lambda: datetime.now(UTC))


def counted(numbers: Mapping[str, int]) -> str:
    """How many of each status or reason, the most frequent first: `3 missing, 1 changed`."""
    return ", ".join(f"{count:,} {name}" for name, count in Counter(numbers).most_common())


def outcome_id(job_id: str, uri: str, etag: str | None) -> str:
    """The deterministic id of an image's outcome: writing it again replaces it, so nothing is ever double."""
    # JSON tells the three apart whatever separators they contain, and no etag from an empty one.
    return hashlib.sha256(json.dumps([job_id, uri, etag]).encode()).hexdigest()[:40]


def failed(error: ImageError) -> Prediction:
    """The prediction that stands for an image that could not be read or decoded."""
    return Prediction(status=cast(Status, error.status), error=OutcomeError(type=error.type, message=str(error)))


ROW_COLUMNS = (
    "uri",
    "etag",
    "status",
    "label",
    "confidence",
    "top_k",
    "decision",
    "error_type",
    "error_message",
    "group",
    "model_name",
    "model_version",
    "bundle",
    "policy",
    "engine",
)
"""The fixed columns of an outcome as a row of a table."""


def outcome_row(outcome: Outcome) -> dict[str, str | float | None]:
    """An outcome as one flat row of a table: fixed columns, then the manifest's further ones by their own names.

    Several labels are joined by commas; top_k is JSON, {"LABEL": CONFIDENCE, …} with the best first. A further column
    named like a fixed one (or `column_…`) becomes `column_NAME`, so that no two are one; a value that is neither text
    nor number becomes JSON.
    """
    top_k = {score.label: score.confidence for score in outcome.top_k}
    fixed = (
        outcome.uri,
        outcome.etag,
        outcome.status,
        ", ".join(outcome.labels) or None,
        outcome.confidence,
        json.dumps(top_k, ensure_ascii=False) if top_k else None,
        outcome.decision,
        outcome.error.type if outcome.error else None,
        outcome.error.message if outcome.error else None,
        outcome.group,
        outcome.model.name,
        outcome.model.version,
        outcome.model.bundle,
        outcome.model.policy,
        outcome.model.engine,
    )
    row: dict[str, str | float | None] = dict(zip(ROW_COLUMNS, fixed, strict=True))
    for name, value in outcome.columns.items():
        row[f"column_{name}" if name in row or name.startswith("column_") else name] = _cell(value)
    return row


def _cell(value: Any) -> str | float | None:
    return value if value is None or isinstance(value, str | int | float) else json.dumps(value, default=str)
