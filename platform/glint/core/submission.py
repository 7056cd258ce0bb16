"""Submissions: what was asked of a batch endpoint, and how far it has come.

The job that a driver makes of it has the same id. Whoever changes a submission does so by its etag, so that any number
of supervisors and servers may act on it at once.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Protocol, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

SubmissionStatus = Literal["queued", "running", "completed", "failed", "stopped", "cancelled"]
STATUSES: tuple[str, ...] = get_args(SubmissionStatus)
WAITING: tuple[str, ...] = ("queued", "running")
"""The statuses of what a driver has still to do."""

LISTS = (".csv", ".jsonl")
"""What a file ends in that lists images."""

DriverStatus = Literal["pending", "running", "succeeded", "failed", "stopped"]
ALIVE: tuple[str, ...] = ("pending", "running")

LEASE = timedelta(seconds=20)
"""How long a job is left to the Ray that last said it had a driver there: servers of one store may have Rays of their
own, which know nothing of each other's drivers."""
RENEWED_AFTER = LEASE / 4


class JobInput(BaseModel):
    """What is scored: one of a place that names many images, or the images themselves."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str | None = Field(
        default=None, description="az://CONTAINER/PREFIX, a folder, a manifest (.parquet), or a list (.csv, .jsonl)"
    )
    uris: tuple[str, ...] | None = Field(default=None, max_length=10_000, description="the images, one by one")

    @model_validator(mode="after")
    def _one_of_them(self) -> JobInput:
        if (self.uri is None) == (not self.uris):
            raise ValueError("name either uri or uris, a list that is not empty")
        return self

    @property
    def named(self) -> tuple[str, ...]:
        """Every address in it."""
        return self.uris or (str(self.uri),)


class Submission(BaseModel):
    """What was asked for, pinned when it was asked; `status` is told by drivers and supervisors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    endpoint: str
    deployment: str
    model: str
    input: JobInput
    options: dict[str, Any] = Field(default_factory=dict)
    priority: int = Field(default=0, ge=-100, le=100, description="of those that wait, higher ones start first")
    webhook: str | None = Field(default=None, description="where the end is told")
    request_digest: str = Field(description="of the request, to tell a repeated one from another under the same key")
    status: SubmissionStatus = "queued"
    attempt: int = Field(default=1, description="of the driver; each has a name of its own")
    cluster: str | None = Field(default=None, description="the Ray that has the driver, by the address of its GCS")
    seen_at: datetime | None = Field(default=None, description="when the driver there, or who started it, last said so")
    first_attempt: int = Field(default=1, description="since it was last asked for")
    max_attempts: int = Field(default=3, ge=1, le=20)
    error: str | None = None
    notified: bool = False
    notices: int = Field(default=0, description="attempts to tell the webhook")
    created_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    started_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def ended(self) -> bool:
        """Nothing more will be scored unless somebody asks for it."""
        return self.status not in WAITING

    @property
    def open(self) -> bool:
        """Whether a supervisor has something to do with it."""
        return not self.ended or bool(self.webhook and not self.notified)

    @property
    def driver(self) -> str:
        """The name of the present attempt's driver."""
        return f"glint-{self.id}-{self.attempt}"

    def end(self, status: SubmissionStatus, error: str | None = None) -> Submission:
        """Ended now, so."""
        return self.model_copy(update={"status": status, "error": error, "ended_at": datetime.now(UTC)})

    def again(self) -> Submission:
        """Queued for a new attempt by somebody's wish."""
        fresh = {"status": "queued", "error": None, "ended_at": None, "notified": False, "notices": 0}
        fresh |= {"attempt": self.attempt + 1, "first_attempt": self.attempt + 1, "started_at": None}
        return self.released().model_copy(update=fresh)

    def is_held_elsewhere(self, cluster: str) -> bool:
        """Whether another Ray than this one has its driver, by what was said within LEASE."""
        return self.cluster != cluster and self._seen_within(LEASE)

    def is_to_renew(self, cluster: str) -> bool:
        """Whether it is time to say again that this Ray has its driver."""
        return self.cluster != cluster or not self._seen_within(RENEWED_AFTER)

    def held(self, cluster: str) -> Submission:
        """This Ray has its driver, as of now."""
        return self.model_copy(update={"cluster": cluster, "seen_at": datetime.now(UTC)})

    def released(self) -> Submission:
        """No Ray has a driver of it."""
        return self.model_copy(update={"cluster": None, "seen_at": None})

    def _seen_within(self, time: timedelta) -> bool:
        return self.seen_at is not None and datetime.now(UTC) - self.seen_at < time


class Drivers(Protocol):
    """Starts the process that drives a job, and knows how it is. All methods block and may be called from a thread."""

    @property
    def cluster(self) -> str:
        """Where it starts them: the address of a Ray."""

    def submit(self, name: str, job_id: str) -> None:
        """Start the driver of a job under that name; a name that was submitted before starts nothing."""

    def status(self, name: str) -> DriverStatus | None:
        """How the driver is, None where nobody knows that name."""

    def logs(self, name: str) -> str:
        """What it has printed so far; empty where nobody knows that name."""

    def stop(self, name: str) -> None:
        """End it, by force after a few seconds; one that has ended or is unknown stays as it is."""


def submission_id(endpoint: str, key: str | None) -> str:
    """The id of what is asked of an endpoint: the same for the same idempotency key, otherwise a new one."""
    if key is None:
        return uuid.uuid4().hex[:16]
    return hashlib.sha256(json.dumps([endpoint, key]).encode()).hexdigest()[:16]


def request_digest(request: Mapping[str, Any]) -> str:
    """What tells one request from another."""
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:32]


def in_turn(waiting: Iterable[Submission]) -> list[Submission]:
    """Those that wait, in the order in which they start: by priority, then by age."""
    return sorted(waiting, key=lambda one: (-one.priority, one.created_at, one.id))
