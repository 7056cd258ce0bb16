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
"""Where validation or the engine runs in bfloat16, which keeps 8 bits of each number."""
ENGINE_TOLERANCES = {"openvino-bf16": TOLERANCE_BF16, "openvino-int8": TOLERANCE_BF16}
"""8 bits are compared with what they gave when they were made; on another processor bfloat16 beside them differs."""


class Sample(BaseModel):
    """One image file of the self-test, and its uncalibrated probabilities in the order of the classes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str = Field(pattern=r"^selftest/[0-9]+$")
    probabilities: tuple[Annotated[float, Field(ge=0, le=1)], ...]
    engines: dict[str, tuple[Annotated[float, Field(ge=0, le=1)], ...]] = Field(
        default={}, description="what engines that are compared with themselves gave when they were made"
    )


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
    _write(directory, selftest)
    return selftest


def add_to_selftest(predictor: Predictor) -> None:
    """Keep what the predictor's engine makes of the samples, for later runs of it to be compared with."""
    directory, engine = predictor.bundle.directory, predictor.model.engine
    if not (directory / "selftest.json").exists():
        return
    selftest = read_document(directory / "selftest.json", SelfTest)
    samples = [
        sample.model_copy(update={"engines": {engine: tuple(_score(predictor, directory, sample).tolist())}})
        for sample in selftest.samples
    ]
    _write(directory, selftest.model_copy(update={"samples": tuple(samples)}))


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
    tolerance = max(selftest.tolerance, ENGINE_TOLERANCES.get(predictor.model.engine, 0))
    return SelfTestResult(
        num_samples=len(selftest.samples), max_difference=difference, tolerance=tolerance, error=problem
    )


def _difference(predictor: Predictor, directory: Path, sample: Sample) -> float:
    found = _score(predictor, directory, sample)
    expected = sample.engines.get(predictor.model.engine, sample.probabilities)
    if len(found) != len(expected):
        raise GlintError(f"{len(expected)} probabilities for {len(found)} classes")
    if not np.isfinite(found).all():
        raise GlintError("probabilities that are no numbers")
    return float(np.abs(found - np.array(expected)).max())


def _score(predictor: Predictor, directory: Path, sample: Sample) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    pixels = predictor.prepare((directory / sample.file).read_bytes()).pixels
    row: np.ndarray[tuple[int], np.dtype[np.float32]] = predictor.raw_score(pixels[None])[0]
    return row


def _write(directory: Path, selftest: SelfTest) -> None:
    (directory / "selftest.json").write_text(selftest.model_dump_json(indent=2) + "\n", encoding="utf-8")
