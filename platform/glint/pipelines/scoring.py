"""Scoring on Ray: one actor a node reads, decodes and infers, all in the threads of one process.

Nothing but manifest rows goes in and nothing but results comes out: pixels never cross the object store.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch

from glint.adapters.images import Images
from glint.core.calibration import rescaled
from glint.core.errors import ImageError
from glint.core.progress import Progress
from glint.pipelines.loading import Batch, RowSource, iter_numpy, stream_of
from glint.pipelines.share import Share
from glint.vision.predictor import Predictor

ENGINE_ERROR = "engine_error"
GPU_BATCH = 64


@dataclass(frozen=True)
class Scored:
    """One image's probabilities (C,), or why there are none; its size in pixels and what each step took."""

    probabilities: np.ndarray[Any, Any] | None = None
    error: ImageError | None = None
    width: int | None = None
    height: int | None = None
    timings_ms: dict[str, float] | None = None


class Scorer:
    """Scores images by their addresses. On a CPU an image runs as it comes, one thread a core; on a GPU in batches."""

    def __init__(self, open_predictor: Callable[[], Predictor], images: Images) -> None:
        self.predictor = open_predictor()
        self.images = images
        self._batch = GPU_BATCH if torch.cuda.is_available() else 1
        self._threads = ThreadPoolExecutor(os.cpu_count() or 1, "glint-score")
        torch.set_num_threads(1)

    def score(self, uris: Sequence[str], etags: Sequence[str | None]) -> list[Scored]:
        """One result for each address, in order, whatever becomes of its neighbours."""
        pairs = list(zip(uris, etags, strict=True))
        parts = [pairs[i : i + self._batch] for i in range(0, len(pairs), self._batch)]
        results = [scored for part in self._threads.map(self._score_part, parts) for scored in part]
        _check_engine(results)
        return results

    def _score_part(self, pairs: list[tuple[str, str | None]]) -> list[Scored]:
        prepared = [self._prepare(uri, etag) for uri, etag in pairs]
        good = [(i, pixels) for i, (_, pixels) in enumerate(prepared) if pixels is not None]
        results = [scored for scored, _ in prepared]
        if not good:
            return results
        started = time.perf_counter()
        answers = self._infer(torch.stack([pixels for _, pixels in good]))
        infer_ms = (time.perf_counter() - started) * 1000 / len(good)
        for answer, (i, _) in zip(answers, good, strict=True):
            before = results[i]
            timings = {**(before.timings_ms or {}), "infer": infer_ms}
            row, error = (None, answer) if isinstance(answer, ImageError) else (answer, None)
            results[i] = Scored(row, error, before.width, before.height, timings)
        return results

    def _infer(self, images: torch.Tensor) -> list[np.ndarray[Any, Any] | ImageError]:
        """Probabilities (C,) of each image (N, C, S, S), or why the engine fails on it.

        A batch that fails is halved until the image that it fails on stands alone.
        """
        try:
            return list(self.predictor.score(images))
        except RuntimeError as error:  # what PyTorch raises, whatever it is that goes wrong
            if len(images) == 1:
                return [ImageError("failed", ENGINE_ERROR, str(error).partition("\n")[0][:500] or "the engine failed")]
        half = len(images) // 2
        return [*self._infer(images[:half]), *self._infer(images[half:])]

    def _prepare(self, uri: str, etag: str | None) -> tuple[Scored, torch.Tensor | None]:
        started = time.perf_counter()
        try:
            data = self.images.read(uri, etag)
            read = time.perf_counter()
            prepared = self.predictor.prepare(data)
        except ImageError as error:
            return Scored(error=error), None
        timings = {"read": (read - started) * 1000, "decode": (time.perf_counter() - read) * 1000}
        return Scored(width=prepared.width, height=prepared.height, timings_ms=timings), prepared.pixels


def _check_engine(results: Sequence[Scored]) -> None:
    """Raise RuntimeError where several images reached the engine and it failed on all: no image is to blame."""
    reached = [
        row for row in results if row.probabilities is not None or (row.error and row.error.type == ENGINE_ERROR)
    ]
    if len(reached) > 1 and all(row.error for row in reached):
        raise RuntimeError(f"the engine fails on every image: {reached[0].error}")


class ScoreRows:
    """Ray Data stage for evaluation: adds probabilities (N, C), as served and uncalibrated, error_type and error."""

    def __init__(self, open_predictor: Callable[[], Predictor], images: Images) -> None:
        self._scorer = Scorer(open_predictor, images)

    def __call__(self, batch: Batch) -> Batch:
        """Score a batch with the columns uri and etag."""
        scored = self._scorer.score(batch["uri"].tolist(), batch["etag"].tolist())
        predictor = self._scorer.predictor
        missing = np.full(len(predictor.classes), np.nan, dtype=np.float32)
        served = np.stack([missing if row.probabilities is None else row.probabilities for row in scored])
        undo = 1 / predictor.bundle.policy.temperature
        return {
            **batch,
            "probabilities": served,
            "raw_probabilities": rescaled(served, undo, predictor.multi_label),
            "error_type": np.array([row.error.type if row.error else "" for row in scored], object),
            "error": np.array([str(row.error or "") for row in scored], object),
        }


def rows_through(
    stage: type, arguments: tuple[Any, ...], rows: pa.Table, progress: Progress, name: str
) -> Iterator[Batch]:
    """Rows of a table through a Ray Data stage, one actor of it a node, with their progress as the stage `name`."""
    source = RowSource(rows, Share(rows.num_rows), range(1))
    stream = stream_of(source, source.num_tasks).map_batches(
        stage,
        fn_constructor_args=arguments,
        batch_size=None,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(size=num_nodes()),
    )
    done = 0
    progress.begin(name, rows.num_rows, "images")
    for batch in iter_numpy(stream, None):
        yield batch
        done += len(batch["uri"])
        progress.update(done)
    progress.end()


def num_nodes() -> int:
    """Nodes of the running Ray that can score."""
    return sum(bool(node["Alive"]) for node in ray.nodes())
