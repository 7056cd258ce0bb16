import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score
from tests.pipelines.progress import Told

from glint.core.errors import GlintError
from glint.core.manifest import Manifest, write_manifest
from glint.pipelines.evaluate import evaluate, score_split
from glint.pipelines.evaluation import Evaluation
from glint.pipelines.train import Trained, labelled_table
from glint.settings import Settings
from glint.wiring import open_images, open_model, open_predictor


def run(trained: Trained, manifest: Manifest, split: str, settings: Settings, report: Path) -> Evaluation:
    found = open_model(trained.model_uri, settings)
    opening = partial(open_predictor, found.uri, settings)
    return evaluate(found.bundle, found.ref, opening, manifest, split, open_images(settings), report, Told())


def test_report_agrees_with_scikit_learn_on_the_same_predictions(
    trained: Trained, manifest: Manifest, settings: Settings, tmp_path: Path
) -> None:
    evaluation = run(trained, manifest, "test", settings, tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    opening = partial(open_predictor, trained.model_uri, settings)
    scored = score_split(labelled_table(manifest, "test"), opening, open_images(settings), Told())
    predicted = np.stack(scored.probabilities).argmax(1)
    assert report["accuracy"] == pytest.approx(accuracy_score(scored.targets, predicted))
    assert report["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(scored.targets, predicted))
    assert report["macro_f1"] == pytest.approx(f1_score(scored.targets, predicted, average="macro"))
    assert np.array(report["confusion_matrix"]).sum() == evaluation.num_images == len(scored.targets)
    assert report["classes"] == list(manifest.classes)
    assert set(report["per_class"]["good"]) == {"precision", "recall", "f1", "support"}


def test_images_that_cannot_be_read_are_left_out_and_counted(
    trained: Trained, manifest: Manifest, settings: Settings, tmp_path: Path
) -> None:
    evaluation = run(trained, manifest, "train", settings, tmp_path)
    assert evaluation.left_out == {"empty": 1, "truncated": 1}
    assert evaluation.num_images == labelled_table(manifest, "train").num_rows - 2
    assert "truncated" in (tmp_path / "report.html").read_text()


def test_model_and_manifest_must_have_the_same_classes(
    trained: Trained, manifest: Manifest, settings: Settings, tmp_path: Path
) -> None:
    rows = [row for row in manifest.table(split="test").to_pylist() if row["labels"] != ["spur"]]
    fewer = write_manifest(tmp_path / "fewer.parquet", [manifest.table(split="test").from_pylist(rows)], source="test")
    with pytest.raises(GlintError, match="but the model has"):
        run(trained, fewer, "test", settings, tmp_path / "report")
