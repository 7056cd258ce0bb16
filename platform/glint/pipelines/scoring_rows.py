"""Rows of a table through a Ray Data stage, for evaluation: one actor a node, which scores or looks at each image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from glint.adapters.images import Images
from glint.core.calibration import rescaled
from glint.core.progress import Progress
from glint.pipelines.chunk_actors import num_nodes
from glint.pipelines.loading import Batch, RowSource, iter_numpy, stream_of
from glint.pipelines.scoring import Scorer
from glint.pipelines.share import Share
from glint.vision.predictor import Predictor


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
