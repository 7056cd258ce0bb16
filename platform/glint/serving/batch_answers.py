"""What the batch API takes and answers with."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from glint.core.endpoint import Deployment, Endpoint
from glint.core.job import Bottleneck
from glint.core.job_options import GivenOptions
from glint.core.outcome import ModelRef, Outcome
from glint.core.submission import JobInput, Submission, SubmissionStatus

PREFIX = "/v1/batch"
"""Of every path below which the API answers."""

What = Literal["missing", "failed", "all"]
"""What a retry scores: what has no outcome yet; with it the mini-batches in which any image ended otherwise than ok; or
everything."""


class _Asked(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NewEndpoint(_Asked):
    """An endpoint to be made; the first deployment is the default unless another is named."""

    name: str
    deployments: dict[str, Deployment] = Field(default_factory=dict)
    default: str | None = None


class Default(_Asked):
    """Which deployment takes the jobs that name none."""

    deployment: str


class JobRequest(_Asked):
    """A job to be run by a deployment of the endpoint."""

    input: JobInput
    deployment: str | None = Field(default=None, description="default: the endpoint's default")
    options: GivenOptions = Field(default_factory=dict, description="over those of the deployment")
    priority: int = Field(default=0, ge=-100, le=100, description="of those that wait, higher ones start first")
    max_attempts: int = Field(default=3, ge=1, le=20, description="drivers that may die before the job fails")
    webhook: str | None = Field(default=None, description="told, signed, when the job ends")


class Retry(_Asked):
    """What to score again, with which options over those of the job."""

    what: What = Field(
        default="missing",
        description="failed: whole mini-batches, of up to 99 images, in which any did not end as ok; all: everything",
    )
    options: GivenOptions = Field(default_factory=dict)


class JobAnswer(BaseModel):
    """A job, as the books have it."""

    id: str
    status: SubmissionStatus
    endpoint: str
    deployment: str
    model: str
    input: JobInput
    options: dict[str, Any]
    priority: int
    attempt: int = Field(description="how many drivers it has had, over its retries too")
    max_attempts: int = Field(description="drivers that may die, counted from the last retry")
    driver: str = Field(description="what Ray calls the driver of this attempt")
    cluster: str | None = Field(description="the Ray that has the driver; null while there is none")
    error: str | None
    notified: bool = Field(description="whether its webhook was told of the end, or given up; false without one")
    bottleneck: Bottleneck | None = Field(description="what held the last run up; null before and in lists")
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


class Jobs(BaseModel):
    """Some jobs, the newest first, and the cursor of the next page; null where this is the last."""

    jobs: tuple[JobAnswer, ...]
    cursor: str | None


class Endpoints(BaseModel):
    """All endpoints, by name."""

    endpoints: tuple[Endpoint, ...]


class JobProgress(BaseModel):
    """How far a job is; sums over the chunks that stand."""

    id: str
    status: SubmissionStatus
    model: ModelRef | None = Field(description="null until the driver has opened it")
    num_images: int | None = Field(description="of the whole job; null until its input is listed")
    done: int
    statuses: dict[str, int]
    labels: dict[str, int]
    decisions: dict[str, int]
    bottleneck: Bottleneck | None = Field(description="what held the last run up; null before its end")


class Notice(JobAnswer):
    """What a webhook is told of a job that has ended."""

    progress: JobProgress


class ResultPage(BaseModel):
    """Some outcomes in the order of their ids, and the cursor of the next page; null where this is the last."""

    outcomes: tuple[Outcome, ...]
    cursor: str | None


class ErrorGroup(BaseModel):
    """What went wrong in the same way, with the first few images."""

    status: str
    reason: str
    count: int
    message: str = Field(description="of the first one")
    examples: tuple[str, ...]


class Errors(BaseModel):
    """What went wrong, the most frequent first."""

    groups: tuple[ErrorGroup, ...]
    counted: int
    complete: bool = Field(description="false where the job has more errors than are looked at")


class Logs(BaseModel):
    """What the driver of the latest attempt has printed."""

    attempt: int
    text: str


def driver_name(submission: Submission) -> str:
    """What Ray calls the present attempt's driver: another name when an id is used again after its job was deleted."""
    return f"{submission.driver}-{round(submission.created_at.timestamp() * 1000):x}"


def job_answer(submission: Submission, bottleneck: Bottleneck | None = None) -> JobAnswer:
    """The submission as callers see it."""
    told = {name: getattr(submission, name) for name in JobAnswer.model_fields if name in Submission.model_fields}
    return JobAnswer(**told, driver=driver_name(submission), bottleneck=bottleneck)
