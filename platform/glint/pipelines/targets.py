"""Labelled rows of a manifest as training and evaluation take them: with numbers for classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.special import expit
from sklearn.utils.class_weight import compute_class_weight

from glint.core.classes import class_index
from glint.core.errors import GlintError
from glint.core.manifest import Manifest
from glint.core.metrics import Scores, classification_scores, multi_label_scores

UNREADABLE = "none of the training images can be read"
_OF_ITSELF = ("uri", "etag", "target")
"""Columns that tell images apart, or what they show, and no groups of them."""


def labelled_table(manifest: Manifest, split: str, columns: Sequence[str] = (), multi_label: bool = False) -> pa.Table:
    """uri, etag, the asked further columns, and target of a split's labelled images.

    target is the class index (int64); with `multi_label`, a list of C numbers (float32), 1 where the image has the
    class. Raises GlintError when there are no labelled images, or several labels where one is taken.
    """
    rows = manifest.table(["uri", "etag", *columns, "labels"], split=split, labelled=True)
    if rows.num_rows == 0:
        raise GlintError(f"--manifest {manifest.path} has no labelled images in the split {split}")
    if multi_label:
        targets = _presence(rows["labels"], manifest.classes)
    elif not pc.all(pc.equal(pc.list_value_length(rows["labels"]), 1)).as_py():
        raise GlintError(
            f"--manifest {manifest.path} has images with several labels, or with none of the classes; "
            "that takes a recipe with task: multi"
        )
    else:
        targets = pc.index_in(pc.list_flatten(rows["labels"]), value_set=pa.array(manifest.classes)).cast(pa.int64())
    return rows.drop_columns(["labels"]).append_column("target", targets)


def _presence(labels: pa.ChunkedArray, classes: tuple[str, ...]) -> pa.Array:
    index = class_index(classes)
    present = np.zeros((len(labels), len(classes)), dtype=np.float32)
    for row, names in enumerate(labels.to_pylist()):
        present[row, [index[name] for name in names]] = 1
    return pa.FixedSizeListArray.from_arrays(pa.array(present.ravel()), len(classes))


def group_columns(manifest: Manifest) -> tuple[str, ...]:
    """The columns by which images may be grouped."""
    return ("group", *(name for name in manifest.columns if name not in _OF_ITSELF))


def group_values(table: pa.Table) -> dict[str, list[Any]]:
    """What images may be grouped by, in their order, by column."""
    return {name: table[name].to_pylist() for name in table.column_names if name not in _OF_ITSELF}


def target_array(table: pa.Table) -> np.ndarray[Any, Any]:
    """The targets of a table: int64 (N,), or float32 (N, C) where they are several to an image."""
    targets = table["target"].combine_chunks()
    if not pa.types.is_fixed_size_list(targets.type):
        return np.asarray(targets)
    return np.asarray(targets.flatten()).reshape(len(targets), targets.type.list_size)


def balanced_weights(targets: np.ndarray[Any, Any], num_classes: int) -> np.ndarray[Any, Any]:
    """Weights (C,), float32, that make up for rare classes: N / (C x count), as scikit-learn's `balanced`.

    For several labels an image: how much rarer the class is than its absence. A class without images weighs 1, and with
    several labels one that every image has.
    """
    if targets.ndim == 2:
        present = targets.sum(0)
        absent = len(targets) - present
        return np.where((present > 0) & (absent > 0), absent / np.maximum(present, 1), 1).astype(np.float32)
    weights = np.ones(num_classes, dtype=np.float32)
    there = np.unique(targets)
    weights[there] = compute_class_weight("balanced", classes=there, y=targets)
    return weights


def scores_of(logits: np.ndarray[Any, Any], targets: np.ndarray[Any, Any], classes: tuple[str, ...]) -> Scores:
    """Scores of logits (N, C) against targets (N,) or (N, C); rows of NaN, images that cannot be read, don't count."""
    good = ~np.isnan(logits).any(1)
    if not good.any():
        raise GlintError("none of the validation images can be read")
    if targets.ndim == 2:
        return multi_label_scores(targets[good], expit(logits[good]), classes)
    return classification_scores(targets[good], logits[good].argmax(1), classes)
