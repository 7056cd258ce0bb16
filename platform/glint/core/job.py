"""Batch jobs and their chunks: identity, size and totals."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from glint.core.outcome import ModelRef, Outcome

CHUNK_ROWS = 99
"""Outcomes in a chunk: with the chunk's own document they fill one transactional batch of 100 operations."""

JobStatus = Literal["running", "completed", "failed", "stopped", "interrupted"]


class Bottleneck(BaseModel):
    """What one run of a job spent, from when its scoring processes were ready."""

    model_config = ConfigDict(frozen=True)

    line: str = Field(description="the same for a person")
    seconds: dict[str, float] = Field(
        description="by step, over all threads; wait: of images for a thread; "
        "restart: of scoring processes that died or overran"
    )
    busy: dict[str, float] = Field(description="share of the time that a step's threads were at work, 0 to 1")
    images_per_s: float
    images_per_s_per_vcpu: float
    node_price: float | None = Field(default=None, description="GLINT_NODE_PRICE: of a node, an hour")
    num_nodes: int = Field(default=1, description="that the job ran on")
    cost_per_million: float | None = Field(description="of a million images, in the currency of the price")


class Job(BaseModel):
    """One run of a model over a frozen list of images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    status: JobStatus
    model: ModelRef
    model_uri: str
    input: str
    input_digest: str
    manifest: str = Field(description="where the frozen input lies")
    num_images: int
    num_chunks: int
    options: dict[str, Any] = Field(default_factory=dict)
    created_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    ended_at: datetime | None = None
    error: str | None = None
    bottleneck: Bottleneck | None = Field(default=None, description="of the last run that scored any image")


class Chunk(BaseModel):
    """What a chunk of up to CHUNK_ROWS consecutive rows came to; written in one transaction with its outcomes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    job_id: str
    chunk: int
    num_images: int
    statuses: dict[str, int]
    labels: dict[str, int]
    decisions: dict[str, int]
    timings_s: dict[str, float] = Field(default_factory=dict)
    created_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    ttl_s: int | None = Field(default=None, ge=1, description="that it and its outcomes live for; None: for ever")

    @property
    def expires(self) -> float | None:
        """When they go, in seconds since 1970; None: never."""
        return self.created_at.timestamp() + self.ttl_s if self.ttl_s else None


def job_id(bundle_digest: str, input_digest: str, options: Mapping[str, Any]) -> str:
    """The identity of a job: the same model over the same input with the same options is the same job."""
    text = json.dumps([bundle_digest, input_digest, options], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def num_chunks(num_images: int, size: int = CHUNK_ROWS) -> int:
    """How many chunks of that size hold that many images."""
    return -(-num_images // size)


def summarise(
    job_id: str, chunk: int, outcomes: Iterable[Outcome], timings_s: Mapping[str, float], ttl_s: int | None = None
) -> Chunk:
    """The chunk document of these outcomes: their counts by status, first label and decision."""
    rows = list(outcomes)
    return Chunk(
        job_id=job_id,
        chunk=chunk,
        num_images=len(rows),
        statuses=dict(Counter(row.status for row in rows)),
        labels=dict(Counter(row.labels[0] for row in rows if row.labels)),
        decisions=dict(Counter(row.decision for row in rows if row.decision)),
        timings_s=dict(timings_s),
        ttl_s=ttl_s,
    )


class Totals(BaseModel):
    """Sums over chunk documents: exact however often a chunk was run again."""

    num_chunks: int = 0
    num_images: int = 0
    statuses: Counter[str] = Field(default_factory=Counter)
    labels: Counter[str] = Field(default_factory=Counter)
    decisions: Counter[str] = Field(default_factory=Counter)

    def add(self, chunk: Chunk) -> None:
        """Count one chunk."""
        self.num_chunks += 1
        self.num_images += chunk.num_images
        self.statuses.update(chunk.statuses)
        self.labels.update(chunk.labels)
        self.decisions.update(chunk.decisions)
