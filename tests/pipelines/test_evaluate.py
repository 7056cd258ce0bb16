import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score
from tests.pipelines.progress import Told

from glint.core.errors import GlintError
from glint.core.manifest import Manifest, write_manifest
from glint.core.policy import Policy
from glint.pipelines.evaluate import Candidate, evaluate, score_split
from glint.pipelines.evaluation import Evaluation
from glint.pipelines.targets import labelled_table
from glint.pipelines.training_run import Trained
from glint.settings import Settings
from glint.vision.bundle import Bundle, write_bundle
from glint.vision.predictor import Predictor
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
    predicted = scored.probabilities.argmax(1)
    assert report["accuracy"] == pytest.approx(accuracy_score(scored.targets, predicted))
    assert report["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(scored.targets, predicted))
    assert report["macro_f1"] == pytest.approx(f1_score(scored.targets, predicted, average="macro"))
    assert np.array(report["confusion_matrix"]).sum() == evaluation.num_images == len(scored.targets)
    assert report["classes"] == list(manifest.classes)
    assert set(report["per_class"]["good"]) == {"precision", "recall", "f1", "support", "given"}


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


def candidate(bundle: Bundle, settings: Settings) -> Candidate:
    found = open_model(str(bundle.directory), settings)
    return Candidate(found.bundle, found.ref, partial(open_predictor, found.uri, settings))


def compare(
    model: Candidate, manifest: Manifest, settings: Settings, report: Path, against: Candidate | None = None
) -> Evaluation:
    told, images = Told(), open_images(settings)
    opening = model.open_predictor
    return evaluate(model.bundle, model.model, opening, manifest, "test", images, report, told, against)


@pytest.mark.slow
def test_models_are_compared_on_the_same_images(
    sighted: Bundle, blind: Bundle, colours: Manifest, settings: Settings, ray_cluster: None, tmp_path: Path
) -> None:
    sides = candidate(blind, settings), candidate(sighted, settings)
    evaluation = compare(sides[0], colours, settings, tmp_path, against=sides[1])
    found = evaluation.comparison
    assert found is not None
    assert found.against == sides[1].model
    assert found.num_images == 180
    assert found.both_right + found.only_against_right == round(180 * found.scores["accuracy"].against)
    assert found.only_against_right >= 55
    red = found.recall["red"]
    assert red.interval is not None
    assert (red.model, red.interval.high < -0.8) == (0, True)
    assert evaluation.resampling.column == "group"
    page = (tmp_path / "report.html").read_text()
    assert "worse by more than luck" in page
    assert 'alt="where the model looked"' in page


def test_decisions_follow_the_policy_that_the_model_has(
    blind: Bundle, colours: Manifest, settings: Settings, ray_cluster: None, tmp_path: Path
) -> None:
    """The colours pass but for red, which this model takes for others: every red image that is no doubt escapes."""
    evaluation = compare(candidate(blind, settings), colours, settings, tmp_path)
    found = evaluation.decisions
    assert (found.num_defective, found.num_good) == (60, 120)
    assert found.escape_rate == found.by_class["red"]["accept"] / 60
    assert found.escape_rate > 0.5
    assert found.counts["reject"] == 0


def test_probabilities_are_scored_as_served_and_without_their_temperature(
    sighted: Bundle, colours: Manifest, settings: Settings, ray_cluster: None, tmp_path: Path
) -> None:
    policy = Policy(temperature=2.5)
    warm = write_bundle(tmp_path / "warm", sighted.info, policy, sighted.weights())
    rows = labelled_table(colours, "test", ["group"]).slice(0, 6)
    opening = partial(open_predictor, str(warm.directory), settings)
    scored = score_split(rows, opening, open_images(settings), Told())
    predictor = Predictor(warm)
    images = [Path(uri.removeprefix("file://")) for uri in scored.uris]
    pixels = torch.stack([predictor.prepare(path.read_bytes()).pixels for path in images])
    np.testing.assert_allclose(scored.probabilities, predictor.score(pixels), atol=1e-5)
    np.testing.assert_allclose(scored.raw, predictor.raw_score(pixels), atol=1e-4)
    assert scored.uris == rows["uri"].to_pylist()
    assert scored.columns == {"group": rows["group"].to_pylist()}


def test_images_with_several_labels_are_evaluated_by_label(
    sighted: Bundle, colours: Manifest, settings: Settings, ray_cluster: None, tmp_path: Path
) -> None:
    rows = colours.table(split="test").to_pylist()
    for i, row in enumerate(rows):
        row["labels"] = [[], ["blue"], ["blue", "red"], ["green", "red"]][i % 4]
    several = write_manifest(tmp_path / "several.parquet", [colours.table().from_pylist(rows)], source="test")
    info = sighted.info.model_copy(update={"recipe": sighted.info.recipe.model_copy(update={"task": "multi"})})
    multi = write_bundle(tmp_path / "multi", info, Policy(accept_classes=("blue",)), sighted.weights())
    evaluation = compare(candidate(multi, settings), several, settings, tmp_path / "report")
    assert (evaluation.task, evaluation.num_images) == ("multi", 180)
    assert evaluation.per_class["red"].support == 90
    assert evaluation.decisions.num_defective == 90
    assert evaluation.mean_average_precision is not None
    assert "there is no confusion matrix" in (tmp_path / "report" / "report.html").read_text()


def test_a_model_to_compare_with_must_have_the_same_classes(
    sighted: Bundle, bundle: Bundle, colours: Manifest, settings: Settings, tmp_path: Path
) -> None:
    with pytest.raises(GlintError, match="but the model to compare with has"):
        compare(candidate(sighted, settings), colours, settings, tmp_path, candidate(bundle, settings))
