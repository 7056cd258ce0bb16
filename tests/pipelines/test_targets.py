from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn.utils.class_weight import compute_class_weight

from glint.core.errors import GlintError
from glint.core.manifest import Manifest, write_manifest
from glint.pipelines.targets import balanced_weights, labelled_table, scores_of, target_array

LABELS = [["open", "short"], [], ["short"], None, ["good"]]


@pytest.fixture
def several(tmp_path: Path) -> Manifest:
    """Images with any number of labels, one of them unlabelled."""
    rows = pa.table(
        {
            "uri": [f"{i}.png" for i in range(5)],
            "etag": ["e"] * 5,
            "size": [1] * 5,
            "labels": pa.array(LABELS, pa.list_(pa.string())),
            "group": ["a", "b", "a", "b", "a"],
            "split": ["train"] * 5,
        }
    )
    return write_manifest(tmp_path / "several.parquet", [rows], source="test")


def test_targets_follow_the_order_of_classes(manifest: Manifest) -> None:
    rows = labelled_table(manifest, "test", ["group"])
    labels = manifest.table(["labels", "group"], split="test")
    assert [[manifest.classes[target]] for target in target_array(rows)] == labels["labels"].to_pylist()
    assert rows["group"].to_pylist() == labels["group"].to_pylist()


def test_several_labels_become_a_row_of_presences(several: Manifest) -> None:
    rows = labelled_table(several, "train", multi_label=True)
    assert several.classes == ("good", "open", "short")
    assert target_array(rows).tolist() == [[0, 1, 1], [0, 0, 0], [0, 0, 1], [1, 0, 0]]
    assert rows["uri"].to_pylist() == ["0.png", "1.png", "2.png", "4.png"]


def test_several_labels_where_one_is_taken_are_the_users_mistake(several: Manifest) -> None:
    with pytest.raises(
        GlintError, match="several labels, or with none of the classes; that takes a recipe with task: multi"
    ):
        labelled_table(several, "train")


def test_a_split_without_labelled_images_is_named(several: Manifest) -> None:
    with pytest.raises(GlintError, match="no labelled images in the split val"):
        labelled_table(several, "val")


def test_balanced_weights_are_scikit_learns_and_one_for_a_class_without_images() -> None:
    targets = np.array([0] * 8 + [1] * 2)
    expected = compute_class_weight("balanced", classes=np.array([0, 1]), y=targets)
    assert balanced_weights(targets, 3).tolist() == pytest.approx([*expected, 1])


def test_balanced_weights_of_several_labels_make_up_for_absence() -> None:
    present = np.array([[1, 0, 0], [1, 0, 1], [1, 0, 0], [1, 0, 0]], dtype=np.float32)
    assert balanced_weights(present, 3).tolist() == [1, 1, 3]


def test_images_that_cannot_be_read_are_in_no_score() -> None:
    logits = np.array([[2, -2], [-2, 2], [np.nan, np.nan], [2, -2]], dtype=np.float32)
    scores = scores_of(logits, np.array([0, 1, 0, 1]), ("a", "b"))
    assert (scores.num_images, scores.accuracy) == (3, pytest.approx(2 / 3))
    several = scores_of(logits, np.array([[1, 0], [0, 1], [1, 1], [1, 0]]), ("a", "b"))
    assert (several.num_images, several.macro_f1) == (3, 1)
    with pytest.raises(GlintError, match="none of the validation images"):
        scores_of(logits[2:3], np.array([0]), ("a", "b"))
