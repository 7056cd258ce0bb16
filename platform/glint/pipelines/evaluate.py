"""Evaluation: a model's scores on one split of a manifest, as report.json and report.html.

glint evaluate --model models:/boards@champion --manifest manifest.parquet --split test --report report
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from glint.adapters.images import Images
from glint.core.errors import GlintError
from glint.core.manifest import Manifest
from glint.core.outcome import ModelRef, counted
from glint.core.progress import Progress
from glint.pipelines.evaluation import Evaluation, ScoredSplit, Subject, assess
from glint.pipelines.loading import Batch
from glint.pipelines.report import make_directory, write_report
from glint.pipelines.scoring_rows import ScoreRows, rows_through
from glint.pipelines.targets import group_columns, group_values, labelled_table, target_array
from glint.vision.bundle import Bundle
from glint.vision.explain import Explainer
from glint.vision.predictor import Predictor


@dataclass(frozen=True)
class Candidate:
    """A model to evaluate: its bundle, what it is called, and how it is opened where it scores."""

    bundle: Bundle
    model: ModelRef
    open_predictor: Callable[[], Predictor]

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several labels."""
        return self.bundle.info.recipe.task == "multi"


def evaluate(
    bundle: Bundle,
    model: ModelRef,
    open_predictor: Callable[[], Predictor],
    manifest: Manifest,
    split: str,
    images: Images,
    report: Path,
    progress: Progress,
    against: Candidate | None = None,
    not_compared: str | None = None,
) -> Evaluation:
    """Score a split and write the report, compared with the model `against`, or saying why `not_compared`.

    Raises GlintError when a model and the manifest don't have the same classes.
    """
    candidate = Candidate(bundle, model, open_predictor)
    _check_classes(candidate, manifest, "the model")
    if against:
        _check_classes(against, manifest, "the model to compare with")
    make_directory(report)
    table = labelled_table(manifest, split, group_columns(manifest), candidate.multi_label)
    scored = score_split(table, open_predictor, images, progress)
    if not scored.uris:
        raise none_readable(manifest, split, scored)
    other = (against.model, score_split(table, against.open_predictor, images, progress)) if against else None
    subject = Subject(model, bundle.policy, str(manifest.path), manifest.digest, split)
    evaluation = assess(scored, manifest.classes, subject, other, not_compared)
    progress.begin("writing the report", None, "")
    write_report(report, evaluation, scored, images, Explainer(bundle))
    progress.end()
    return evaluation


def none_readable(manifest: Manifest, split: str, scored: ScoredSplit) -> GlintError:
    """The error of a split without one image that could be scored."""
    reasons = counted(Counter(scored.left_out.values()))
    return GlintError(f"none of the images of the split {split} of {manifest.path} can be read: {reasons}")


def score_split(
    table: pa.Table, open_predictor: Callable[[], Predictor], images: Images, progress: Progress
) -> ScoredSplit:
    """Score the rows of `table` on Ray: uri, etag, target as from `labelled_table`, and any columns to slice by."""
    rows = table.select(["uri", "etag"]).append_column("row", pa.array(range(table.num_rows), pa.int64()))
    batches = list(rows_through(ScoreRows, (open_predictor, images), rows, progress, "evaluating"))
    return _gathered(table, {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]})


def _gathered(table: pa.Table, results: Batch) -> ScoredSplit:
    """The results in the order of the table, with its targets and columns."""
    order = np.argsort(results["row"])
    reasons = results["error_type"][order]
    good = np.flatnonzero(reasons == "")
    uris = table["uri"].to_pylist()
    return ScoredSplit(
        uris=[uris[i] for i in good],
        targets=target_array(table)[good],
        probabilities=results["probabilities"][order][good],
        raw=results["raw_probabilities"][order][good],
        columns=group_values(table.take(pa.array(good))),
        left_out={uris[i]: str(reason) for i, reason in enumerate(reasons) if reason},
    )


def _check_classes(candidate: Candidate, manifest: Manifest, which: str) -> None:
    if candidate.bundle.info.classes != manifest.classes:
        raise GlintError(
            f"--manifest has the classes {list(manifest.classes)}, but {which} has "
            f"{list(candidate.bundle.info.classes)}"
        )
