"""A bundle's self-test: sample images as they lay in storage, and the probabilities that training's validation gave.

selftest.json   for each sample its file and uncalibrated probabilities, and how far a score may be off
selftest/       the files, byte for byte

A predictor that reads, resizes, normalises or computes otherwise than training did gives itself away here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from glint.core.errors import GlintError, ImageError
from glint.vision.bundle import read_document
from glint.vision.predictor import Predictor

MAX_SAMPLES = 8
MAX_SAMPLE_BYTES = 256 * 1024
TOLERANCE = 0.002
"""Largest difference of a probability between float32 engines, which sum in another order."""
TOLERANCE_BF16 = 0.05
"""Where validation ran in bfloat16, which keeps 8 bits of each number."""


class Sample(BaseModel):
    """One image file of the self-test, and its uncalibrated probabilities in the order of the classes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str = Field(pattern=r"^selftest/[0-9]+$")
    probabilities: tuple[Annotated[float, Field(ge=0, le=1)], ...]


class SelfTest(BaseModel):
    """selftest.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tolerance: float = Field(gt=0, le=TOLERANCE_BF16)
    samples: tuple[Sample, ...] = Field(min_length=1, max_length=MAX_SAMPLES)


class SelfTestResult(BaseModel):
    """How far the predictor's probabilities are from training's at most; 1 where a sample cannot be scored at all."""

    model_config = ConfigDict(frozen=True)

    num_samples: int
    max_difference: float
    tolerance: float
    error: str | None = None

    @property
    def passed(self) -> bool:
        """Whether the predictor sees what training saw."""
        return self.max_difference <= self.tolerance


def write_selftest(
    directory: Path, samples: Sequence[tuple[bytes, Sequence[float]]], tolerance: float = TOLERANCE
) -> SelfTest:
    """Add a self-test to the bundle in `directory`: encoded images, each with its uncalibrated probabilities (C,).

    Of more than MAX_SAMPLES those of at most MAX_SAMPLE_BYTES go first, for the bundle to stay small, and of these the
    least certain: where the model is sure, a small difference in its input hardly shows.
    """

    def rank(sample: tuple[bytes, Sequence[float]]) -> tuple[bool, float]:
        return len(sample[0]) > MAX_SAMPLE_BYTES, min(max(share, 1 - share) for share in sample[1])

    kept = sorted(samples, key=rank)[:MAX_SAMPLES]
    (directory / "selftest").mkdir(exist_ok=True)
    written = []
    for number, (data, probabilities) in enumerate(kept):
        sample = Sample(file=f"selftest/{number}", probabilities=tuple(map(float, probabilities)))
        (directory / sample.file).write_bytes(data)
        written.append(sample)
    selftest = SelfTest(tolerance=tolerance, samples=tuple(written))
    (directory / "selftest.json").write_text(selftest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return selftest


def run_selftest(predictor: Predictor) -> SelfTestResult | None:
    """Score the samples of the predictor's bundle; None when it has no self-test."""
    directory = predictor.bundle.directory
    if not (directory / "selftest.json").exists():
        return None
    selftest = read_document(directory / "selftest.json", SelfTest)
    difference, problem = 0.0, None
    for sample in selftest.samples:
        try:
            difference = max(difference, _difference(predictor, directory, sample))
        except (OSError, ImageError, GlintError) as error:
            difference, problem = 1.0, f"{sample.file}: {error}"
    return SelfTestResult(
        num_samples=len(selftest.samples), max_difference=difference, tolerance=selftest.tolerance, error=problem
    )


def _difference(predictor: Predictor, directory: Path, sample: Sample) -> float:
    pixels = predictor.prepare((directory / sample.file).read_bytes()).pixels
    found = predictor.raw_score(pixels[None])[0]
    if len(found) != len(sample.probabilities):
        raise GlintError(f"{len(sample.probabilities)} probabilities for {len(found)} classes")
    return float(np.abs(found - np.array(sample.probabilities)).max())
