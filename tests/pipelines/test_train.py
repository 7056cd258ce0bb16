from dataclasses import replace
from pathlib import Path

import mlflow
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from tests.pipelines.progress import Told

from glint.core.errors import GlintError
from glint.core.intervals import within_one_standard_error
from glint.core.manifest import write_manifest
from glint.core.recipe import Optimisation
from glint.pipelines.run_state import write_identity
from glint.pipelines.train import TRAINED, _example, finished, make_plan, train
from glint.pipelines.training_run import Trained, TrainingRun
from glint.settings import Settings
from glint.vision.bundle import Bundle


def test_training_writes_a_bundle_that_says_what_it_is(trained: Trained, training: TrainingRun) -> None:
    bundle = Bundle(Path(trained.bundle))
    assert bundle.info.classes == training.manifest.classes
    assert bundle.info.manifest == training.manifest.digest
    assert bundle.info.recipe == training.recipe
    assert bundle.info.metrics["val_macro_f1"] == trained.metrics["val_macro_f1"]
    assert bundle.digest == trained.bundle_digest
    names = {path.name for path in bundle.directory.iterdir()}
    written = {"weights.safetensors", "bundle.json", "policy.json", "card.md", "selftest.json", "selftest", "engines"}
    assert names == written
    assert bundle.info.engines is not None
    assert bundle.info.engines.chosen.startswith("openvino")
    assert "too few" in {trial.engine: trial.reason for trial in bundle.info.engines.trials}["openvino-int8"]
    assert bundle.policy.temperature != 1
    assert len(list((bundle.directory / "selftest").iterdir())) == 8


def test_one_mlflow_run_holds_parameters_and_every_epoch(
    trained: Trained, training: TrainingRun, settings: Settings
) -> None:
    client = mlflow.MlflowClient(settings.tracking_uri)
    run = client.get_run(trained.mlflow_run)
    assert run.info.status == "FINISHED"
    assert run.data.params["optimisation.lr"] == "0.003"
    history = client.get_metric_history(trained.mlflow_run, "val_macro_f1")
    assert [point.step for point in history] == [1, 2]
    kept = history[trained.best_epoch - 1].value
    assert kept == trained.metrics["val_macro_f1"]
    best = max(point.value for point in history)
    assert within_one_standard_error(kept, best, training.manifest.table(["uri"], "val").num_rows)


def test_spoilt_images_are_left_out_and_counted(trained: Trained) -> None:
    assert trained.bad_images == 2


def test_finished_run_asked_for_again_says_so_at_once(trained: Trained, training: TrainingRun) -> None:
    told = Told()
    again = train(training, told)
    assert again == trained.model_copy(update={"resumed": True})
    assert told.lines == [f"run {training.id} is finished already; --fresh starts over"]
    assert told.stages == []


@pytest.mark.slow
def test_fresh_training_with_the_same_seed_gives_the_same_scores(trained: Trained, training: TrainingRun) -> None:
    told = Told()
    again = train(replace(training, name="again"), told)
    assert again.metrics == trained.metrics
    assert again.version != trained.version
    assert [line.split(":")[0] for line in told.lines[:2]] == ["epoch 1/2", "epoch 2/2"]
    assert any(line.startswith("2 images were left out: ") for line in told.lines)
    assert told.done[-1] > 0


def test_plain_mlflow_scores_the_registered_model(
    trained: Trained, training: TrainingRun, settings: Settings, boards: Path
) -> None:
    picture = sorted((boards / "short").iterdir())[0].read_bytes()
    mlflow.set_tracking_uri(settings.tracking_uri)  # of the whole process: another test may have set its own
    model = mlflow.pyfunc.load_model(trained.model_uri)
    answers = model.predict(pd.DataFrame({"image": [picture, b"not an image"]}))
    assert answers["label"][0] in training.manifest.classes
    assert 0 < answers["confidence"][0] <= 1
    assert answers["label"].isna().tolist() == [False, True]


def test_weights_that_are_no_file_are_the_users_mistake(training: TrainingRun) -> None:
    recipe = training.recipe.model_copy(update={"weights": "absent.safetensors"})
    with pytest.raises(GlintError, match=r"recipe.weights 'absent.safetensors' is not there; it must be none, hub"):
        train(replace(training, recipe=recipe), Told())


@pytest.mark.parametrize("weights", ["absent.safetensors", "{bundle}"])
def test_weights_that_cannot_be_had_cost_no_run_that_fresh_would_forget(
    trained: Trained, training: TrainingRun, weights: str
) -> None:
    recipe = training.recipe.model_copy(update={"weights": weights.format(bundle=trained.bundle)})
    with pytest.raises(GlintError, match=r"recipe.weights .* (is not there|belong to the run that --fresh forgets)"):
        train(replace(training, recipe=recipe, name=trained.run), Told(), fresh=True)
    assert train(training, Told()).bundle_digest == trained.bundle_digest
    assert Path(trained.bundle, "weights.safetensors").exists()


def test_an_example_is_found_however_many_images_are_gone(training: TrainingRun) -> None:
    table = training.manifest.table(["uri", "etag"]).slice(0, 150)
    gone = pa.table({"uri": [f"{uri}.gone" for uri in table["uri"].to_pylist()], "etag": table["etag"]})
    assert _example(training, pa.concat_tables([gone.cast(table.schema), training.manifest.table(["uri", "etag"])]))
    with pytest.raises(GlintError, match="none of the training images of"):
        _example(training, gone)


def test_split_without_labelled_images_is_named(tmp_path: Path, training: TrainingRun) -> None:
    rows = training.manifest.table().filter(pa.compute.equal(training.manifest.table()["split"], "train"))
    manifest = write_manifest(tmp_path / "train-only.parquet", [rows], source="test")
    with pytest.raises(GlintError, match="no labelled images in the split val"):
        train(replace(training, manifest=manifest), Told())


def test_a_manifest_without_labels_is_named(tmp_path: Path, training: TrainingRun) -> None:
    rows = training.manifest.table()
    bare = rows.set_column(rows.schema.get_field_index("labels"), "labels", pa.nulls(len(rows), rows["labels"].type))
    manifest = write_manifest(tmp_path / "bare.parquet", [bare], source="test")
    with pytest.raises(GlintError, match=r"bare.parquet has no labelled images; glint snapshot --labels adds"):
        train(replace(training, manifest=manifest), Told())


def test_recipes_that_ship_are_valid() -> None:
    from glint.core.recipe import read_recipe

    folder = Path(__file__).parents[2] / "configs" / "recipes"
    for path in sorted(folder.glob("*.yaml")):
        recipe = read_recipe(path)
        assert recipe.name == yaml.safe_load(path.read_text())["name"]
        assert recipe.optimisation != Optimisation()


def test_a_name_that_is_no_folder_is_refused(training: TrainingRun) -> None:
    with pytest.raises(GlintError, match=r"--name '../evil' must be"):
        train(replace(training, name="../evil"), Told())
    assert not (training.home / "evil").exists()


def test_a_name_joins_no_two_runs(trained: Trained, training: TrainingRun, tmp_path: Path) -> None:
    other = training.recipe.model_copy(update={"seed": 7})
    with pytest.raises(GlintError, match=rf"--name '{training.id}' is a run with other recipe \(.*, not .*--fresh"):
        train(replace(training, name=training.id, recipe=other), Told())
    rows = training.manifest.table().slice(1)
    manifest = write_manifest(tmp_path / "fewer.parquet", [rows], source="test")
    with pytest.raises(GlintError, match=r"is a run with other recipe \(.*\) and manifest \("):
        train(replace(training, name=training.id, recipe=other, manifest=manifest), Told())


def test_what_is_trained_names_the_version_that_an_alias_means_now(trained: Trained, training: TrainingRun) -> None:
    training.registry.promote(trained.model, trained.version, "elder")
    recipe = training.recipe.model_copy(update={"weights": f"models:/{trained.model}@elder"})
    run = replace(training, recipe=recipe)
    assert make_plan(run, Told()).recipe == recipe.model_copy(update={"weights": trained.model_uri})
    assert run.identity["recipe"] == recipe.digest, "the run is known by what was asked for"


def test_a_named_run_that_is_finished_needs_neither_ray_nor_its_weights(
    trained: Trained, training: TrainingRun, tmp_path: Path
) -> None:
    recipe = training.recipe.model_copy(update={"weights": "models:/gone@champion"})
    run = replace(training, home=tmp_path, name="spring", recipe=recipe)
    assert finished(run, Told()) is None
    write_identity(run.directory, run.known_identity | {"weights": "those of another day"})
    (run.directory / TRAINED).write_text(trained.model_dump_json())
    assert finished(run, Told()) == trained.model_copy(update={"resumed": True})
