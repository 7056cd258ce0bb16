"""Ways of training beside the plain one, each from end to end on the boards of the fast tests."""

import math
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
from tests.pipelines.progress import Told

from glint.core.errors import GlintError
from glint.core.manifest import Manifest
from glint.core.recipe import Recipe, with_fields
from glint.pipelines.fitting import Workers
from glint.pipelines.snapshot import snapshot
from glint.pipelines.train import train
from glint.pipelines.training_run import Trained, TrainingRun
from glint.settings import Settings
from glint.vision.bundle import Bundle
from glint.vision.predictor import Predictor
from glint.vision.selftest import run_selftest

pytestmark = pytest.mark.slow
EVERYTHING = {
    "views": "dihedral",
    "preprocessing.channels": "gray",
    "augmentation.auto": "rand_augment",
    "augmentation.crop_scale": 0.7,
    "augmentation.erase": 0.3,
    "augmentation.mixup": 0.2,
    "augmentation.cutmix": 1.0,
    "optimisation.start_size": 32,
    "optimisation.accumulate": 2,
    "optimisation.optimizer": "sgd",
    "optimisation.layer_decay": 0.8,
    "optimisation.clip_norm": 1.0,
    "optimisation.focal_gamma": 1.5,
    "optimisation.class_weights": "balanced",
    "optimisation.sampling": "balanced",
    "optimisation.ema_decay": 0.99,
}


@pytest.fixture
def train_with(training: TrainingRun, tmp_path: Path) -> Callable[..., Trained]:
    """Trains with other values for fields of the recipe, in a run named by the test."""

    def run(name: str, values: dict[str, Any], **more: Any) -> Trained:
        recipe = with_fields(training.recipe, values)
        return train(replace(training, recipe=recipe, name=f"{tmp_path.name}-{name}", **more), Told())

    return run


def val_history(trained: Trained, settings: Settings, metric: str = "val_macro_f1") -> dict[int, float]:
    history = mlflow.MlflowClient(settings.tracking_uri).get_metric_history(trained.mlflow_run, metric)
    return {point.step: point.value for point in history}


def test_all_options_go_together_and_give_a_model_that_answers(
    train_with: Callable[..., Trained], boards: Path
) -> None:
    trained = train_with("everything", EVERYTHING)
    predictor = Predictor(Bundle(Path(trained.bundle)))
    assert predictor.bundle.info.preprocessing.channels == "gray"
    answers = predictor.predict(sorted((boards / "good").iterdir())[1:4])
    assert [answer.status for answer in answers] == ["ok"] * 3
    assert trained.metrics["val_macro_f1"] > 0
    selftest = run_selftest(predictor)
    assert selftest is not None
    assert selftest.passed, "what serves is what was validated"


def test_the_head_learns_first_on_frozen_features_of_an_earlier_model(
    train_with: Callable[..., Trained], trained: Trained, training: TrainingRun, settings: Settings
) -> None:
    values = {"weights": trained.model_uri, "strategy": "two_phase", "frozen.epochs": 30, "frozen.views": 2}
    two_phases = train_with("two", values)
    history = val_history(two_phases, settings)
    assert sorted(history) == [0, 1, 2]
    chance = math.log(len(training.manifest.classes))
    assert val_history(two_phases, settings, "train_loss")[0] < chance
    probe = train_with("probe", values | {"strategy": "probe"})
    assert val_history(probe, settings) == {0: history[0]}
    assert (probe.best_epoch, probe.epochs) == (0, 0)


def test_training_from_an_earlier_model_starts_where_that_one_ended(
    train_with: Callable[..., Trained], trained: Trained, settings: Settings
) -> None:
    values = {"optimisation.epochs": 1, "optimisation.lr": 1e-7}
    onwards = train_with("onwards", values | {"weights": trained.bundle})
    assert val_history(onwards, settings)[1] == pytest.approx(trained.metrics["val_macro_f1"], abs=0.1)
    with pytest.raises(GlintError, match="backbone"):
        train_with("other", values | {"weights": trained.bundle, "backbone": "test_vit"})


def test_two_workers_take_the_same_steps_as_one(
    train_with: Callable[..., Trained], settings: Settings, ray_cluster: None
) -> None:
    # A backbone without batch statistics, and nothing drawn at random but the order; 7 and 8 images to a worker.
    values = {
        "backbone": "test_vit",
        "augmentation.policy": "none",
        "preprocessing.image_size": 64,
        "precision": "fp32",
        "optimisation.batch_size": 15,
    }
    alone = train_with("one", values)
    both = train_with("two", values, workers=Workers(2, 2))
    for metric in ("train_loss", "val_macro_f1"):
        one, two = val_history(alone, settings, metric), val_history(both, settings, metric)
        assert two == pytest.approx(one, abs=1e-3)


def test_what_two_workers_keep_is_what_they_have_validated(
    train_with: Callable[..., Trained], ray_cluster: None
) -> None:
    # Its batch statistics differ by worker; the self-test has images that either of them validated.
    values = {"backbone": "test_resnet", "precision": "fp32", "optimisation.ema_decay": 0.9}
    trained = train_with("statistics", values, workers=Workers(2, 2))
    tried = run_selftest(Predictor(Bundle(Path(trained.bundle)), engine="torch"))
    assert tried is not None
    assert tried.max_difference < 1e-5


def test_training_on_as_many_workers_as_there_is_room_for_comes_to_its_end(
    train_with: Callable[..., Trained], settings: Settings, ray_cluster: None
) -> None:
    trained = train_with("elastic", {}, workers=Workers(1, 2))
    assert sorted(val_history(trained, settings)) == [1, 2]


@pytest.mark.skipif(not (os.environ.get("CXX") or shutil.which("g++")), reason="torch.compile needs a C++ compiler")
def test_a_compiled_network_learns_as_the_plain_one_does(
    train_with: Callable[..., Trained], settings: Settings
) -> None:
    values = {"optimisation.epochs": 1, "augmentation.policy": "none", "precision": "fp32"}
    plain, compiled = train_with("plain", values), train_with("compiled", values | {"optimisation.compile": True})
    losses = [val_history(trained, settings, "train_loss")[1] for trained in (plain, compiled)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-2)


def test_training_ends_early_when_it_gets_no_better(train_with: Callable[..., Trained], settings: Settings) -> None:
    values = {"optimisation.epochs": 30, "optimisation.patience": 1, "optimisation.lr": 1e-12}
    assert len(val_history(train_with("early", values), settings)) < 10


def test_images_with_several_labels_are_learnt_and_answered(
    train_with: Callable[..., Trained], training: TrainingRun, boards: Path, tmp_path: Path
) -> None:
    lines = ["path,label,lot"]
    for row in training.manifest.table().to_pylist():
        path, (label,) = Path(row["uri"].removeprefix("file://")), row["labels"]
        lines.append(f"{path.relative_to(boards)},{';' if label == 'good' else f'{label};defect'},{row['split']}")
    labels, out = tmp_path / "labels.csv", tmp_path / "several.parquet"
    labels.write_text("\n".join(lines) + "\n")
    snapshot(training.images, str(boards), out, str(labels), "lot", ("val",), ("test",), separator=";")
    many = Manifest.open(out)
    assert set(many.classes) == {"defect", *training.manifest.classes} - {"good"}
    values = {"task": "multi", "policy.accept_classes": None, "optimisation.epochs": 4, "augmentation.mixup": 0.1}
    trained = train_with("several", values, manifest=many)
    predictor = Predictor(Bundle(Path(trained.bundle)))
    scores = predictor.score(predictor.prepare(sorted((boards / "short").iterdir())[0].read_bytes()).pixels[None])[0]
    assert "good" not in predictor.classes
    assert scores.sum() != pytest.approx(1, abs=1e-3)
    assert scores[predictor.classes.index("defect")] > 0.5


def test_a_recipe_that_cannot_work_is_refused(recipe: Recipe) -> None:
    for values, reason in (
        ({"strategy": "probe"}, "recipe.strategy probe needs weights"),
        ({"task": "multi", "optimisation.sampling": "balanced"}, "sampling balanced needs task single"),
        ({"optimisation.start_size": 128}, "start_size must not be above"),
        ({"optimisation.accumulate": 3}, "must be a multiple of optimisation.accumulate"),
        ({"optimisation.batch_size": 31, "augmentation.mixup": 0.2}, "must be of even size"),
    ):
        with pytest.raises(GlintError, match=reason):
            with_fields(recipe, values)
