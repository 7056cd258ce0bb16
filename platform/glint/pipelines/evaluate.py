"""Evaluation: a model's scores on one split of a manifest, as report.json and report.html.

glint evaluate --model models:/boards@champion --manifest manifest.parquet --split test --report report
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import ray.data

from glint.adapters.images import Images
from glint.core.errors import GlintError
from glint.core.manifest import Manifest
from glint.core.metrics import classification_scores
from glint.core.outcome import ModelRef
from glint.core.progress import Progress
from glint.pipelines.evaluation import Evaluation, ScoredSplit
from glint.pipelines.loading import RowSource, Share, iter_numpy, stream_of
from glint.pipelines.report import make_directory, write_report
from glint.pipelines.scoring import ScoreRows, num_nodes
from glint.pipelines.train import labelled_table
from glint.vision.bundle import Bundle
from glint.vision.predictor import Predictor


def evaluate(
    bundle: Bundle,
    model: ModelRef,
    open_predictor: Callable[[], Predictor],
    manifest: Manifest,
    split: str,
    images: Images,
    report: Path,
    progress: Progress,
) -> Evaluation:
    """Score a split and write the report; raises GlintError when model and manifest don't have the same classes."""
    if bundle.info.classes != manifest.classes:
        raise GlintError(
            f"--manifest has the classes {list(manifest.classes)}, but the model has {list(bundle.info.classes)}"
        )
    make_directory(report)
    scored = score_split(labelled_table(manifest, split), open_predictor, images, progress)
    if not scored.targets:
        raise GlintError(f"none of the images of the split {split} of {manifest.path} can be read: {scored.left_out}")
    predicted = np.stack(scored.probabilities).argmax(1)
    evaluation = Evaluation(
        **dict(classification_scores(scored.targets, predicted, manifest.classes)),
        model=model,
        manifest=str(manifest.path),
        manifest_digest=manifest.digest,
        split=split,
        left_out=dict(Counter(scored.left_out.values())),
    )
    write_report(report, evaluation, scored, images)
    return evaluation


def score_split(
    table: pa.Table, open_predictor: Callable[[], Predictor], images: Images, progress: Progress
) -> ScoredSplit:
    """Score the rows of `table` (uri, etag, target) on Ray."""
    source = RowSource(table, Share(table.num_rows), range(1))
    stream = stream_of(source, source.num_tasks).map_batches(
        ScoreRows,
        fn_constructor_args=(open_predictor, images),
        batch_size=None,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(size=num_nodes()),
    )
    scored = ScoredSplit()
    progress.begin("evaluating", table.num_rows, "images")
    for batch in iter_numpy(stream, None):
        scored.add(batch)
        progress.update(len(scored.uris) + len(scored.left_out))
    progress.end()
    return scored
