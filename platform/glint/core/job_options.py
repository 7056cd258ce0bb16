"""What can be asked of a batch job: on the command line, of a deployment, and of each job over its deployment."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from glint.core.engines import ENGINES
from glint.core.errors import GlintError
from glint.core.job import CHUNK_ROWS, Totals
from glint.core.outcome import DEFAULT_TOP_K, counted

STOP_FROM = 200
"""Images that must have ended before a job may be stopped for its errors."""
FIXED = ("mini_batch_size", "engine", "top_k")
"""Options that stay once a job has begun: its chunks are numbered by the first, the others make other outcomes."""
_PERCENT = re.compile(r"(\d+(?:\.\d+)?) ?%")


class JobOptions(BaseModel):
    """The options of a batch job, with defaults that suit most of them."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    mini_batch_size: int = Field(
        default=CHUNK_ROWS, ge=1, le=CHUNK_ROWS, description="images scored and written together; fixed once begun"
    )
    concurrency: int | None = Field(
        default=None, ge=1, le=256, description="images decoded at once on each node; default: its cores"
    )
    max_retries: int = Field(
        default=1, ge=1, le=10, description="tries, alone, of an image that its process died on or took too long for"
    )
    item_timeout_s: float = Field(
        default=120, gt=0, description="for each step of an image: reading, decoding, inferring"
    )
    mini_batch_timeout_s: float = Field(default=1800, gt=0, description="for the images of one mini-batch")
    error_threshold: int | str = Field(
        default="5%", description="images, as a count or a share, that may end other than ok before the job fails"
    )
    decode: Literal["auto", "fused", "apart"] = Field(
        default="auto", description="fused with inferring, or apart in processes of its own; auto: apart for GPUs"
    )
    ttl_days: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="days that outcomes live, from when they were made; default: for ever",
    )
    top_k: int = Field(
        default=DEFAULT_TOP_K, ge=1, le=1000, description="classes kept with each outcome; fixed once begun"
    )
    engine: str = Field(default="auto", description=f"one of {', '.join(ENGINES)}; fixed once begun")
    parquet: bool = Field(default=False, description="write the outcomes as a Parquet file too when the job ends")

    @property
    def ttl_s(self) -> int | None:
        """`ttl_days` in seconds."""
        return self.ttl_days * 86_400 if self.ttl_days else None

    @field_validator("engine")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in ENGINES:
            raise ValueError(f"must be one of {', '.join(ENGINES)}")
        return value

    @field_validator("error_threshold", mode="before")
    @classmethod
    def _count_or_share(cls, value: object) -> int | str:
        """20 and "20" are a count; 0.05, "0.05" and "5%" are a share."""
        text = str(value).strip()
        if percent := _PERCENT.fullmatch(text):
            share = float(percent[1]) / 100
        elif isinstance(value, bool) or not re.fullmatch(r"\d+|0?\.\d+", text):
            raise ValueError('must be a count, such as 20, or a share, such as "5%" or 0.05')
        elif text.isdigit():
            return int(text)
        else:
            share = float(text)
        if share > 1:
            raise ValueError("must be a share of at most 100%")
        return f"{share * 100:g}%"

    def tolerated(self, num_images: int) -> int:
        """How many of so many images may end other than ok."""
        if isinstance(self.error_threshold, int):
            return self.error_threshold
        return int(num_images * float(self.error_threshold[:-1]) / 100 + 1e-9)

    def too_many_errors(self, totals: Totals, num_images: int) -> str | None:
        """A line that says so where more images ended other than ok than the whole job may have, None otherwise."""
        bad = totals.num_images - totals.statuses["ok"]
        tolerated = self.tolerated(num_images)
        if bad <= tolerated:
            return None
        kinds = counted({status: count for status, count in totals.statuses.items() if status != "ok"})
        return (
            f"{bad:,} of {num_images:,} images did not end ok ({kinds}), more than the {tolerated:,} of "
            f"error_threshold {self.error_threshold}"
        )

    def is_hopeless(self, totals: Totals, num_images: int) -> bool:
        """Whether the job cannot but fail, and enough of it was seen to stop it."""
        return totals.num_images >= STOP_FROM and self.too_many_errors(totals, num_images) is not None


def _finite(options: dict[str, Any]) -> dict[str, Any]:
    """JSON has no such numbers: on their way they would become null, which is no option given."""
    for name, value in options.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"options.{name} must be a finite number, got {value}")
    return options


GivenOptions = Annotated[dict[str, Any], AfterValidator(_finite)]
"""Options by name, as somebody asks for them; `job_options` says whether there are such."""


def job_options(given: Mapping[str, Any], as_flags: bool = False) -> JobOptions:
    """The options that were given, by name; raises GlintError for one that there is not, or of no such value.

    `as_flags`: the message calls them as the command line does.
    """
    try:
        return JobOptions(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = first["loc"][0]
        if first["type"] == "extra_forbidden":
            known = ", ".join(JobOptions.model_fields)
            raise GlintError(f"options.{name} is no option of a job; there are {known}") from None
        said = first["msg"].removeprefix("Value error, ").removeprefix("Input should ").removeprefix("must ")
        called = f"--{str(name).replace('_', '-')}" if as_flags else f"options.{name}"
        raise GlintError(f"{called} must {said}, got {first['input']!r}") from None
