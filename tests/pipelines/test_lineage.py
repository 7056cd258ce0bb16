"""What a version has learned from, through the versions, bundles and files that its training began with."""

import json
import shutil
from pathlib import Path

import mlflow
import pytest
from tests.colours import register

from glint.adapters.registry import Registry
from glint.adapters.tracking import MANIFEST
from glint.core.manifest import Manifest
from glint.pipelines.lineage import Origin, origins
from glint.vision.bundle import Bundle


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(f"sqlite:///{tmp_path}/mlflow.db", tmp_path)


def begun_with(weights: str, of: Bundle, folder: Path) -> Bundle:
    """A bundle whose recipe says so."""
    bundle = Path(shutil.copytree(of.directory, folder / "artifacts" / "bundle"))
    document = json.loads((bundle / "bundle.json").read_text())
    document["recipe"]["weights"] = weights
    (bundle / "bundle.json").write_text(json.dumps(document))
    return Bundle(bundle)


def keep_manifest(registry: Registry, version: str, manifest: Manifest) -> None:
    """As a training does."""
    client = mlflow.MlflowClient(registry.tracking_uri)
    run = client.get_model_version("colours", version).run_id
    client.set_tag(run, "glint.manifest", manifest.digest)
    registry.log_file(run, manifest.path, MANIFEST)


def called(found: tuple[Origin, ...]) -> list[str]:
    return [one.called for one in found]


def test_a_version_has_its_own_manifest(registry: Registry, sighted: Bundle, colours: Manifest) -> None:
    register(registry, "colours", sighted)
    (unkept,) = origins("colours", "1", registry)
    assert (unkept.digest, unkept.manifest) == (colours.digest, None)
    assert unkept.absence == f"models:/colours/1 was trained on manifest {colours.digest[:16]}, which is not at hand"
    keep_manifest(registry, "1", colours)
    (own,) = origins("colours", "1", registry)
    assert own.manifest is not None
    assert own.manifest.digest == colours.digest


def test_versions_are_followed_to_the_first(
    registry: Registry, sighted: Bundle, colours: Manifest, tmp_path: Path
) -> None:
    for number, weights in enumerate(["none", "models:/colours/1", "models:/colours/2"], start=1):
        version = register(registry, "colours", begun_with(weights, sighted, tmp_path / str(number)))
        keep_manifest(registry, version, colours)
    found = origins("colours", "3", registry)
    assert called(found) == ["models:/colours/3", "models:/colours/2", "models:/colours/1"]
    assert all(one.manifest for one in found)


def test_a_bundle_is_followed_to_the_manifest_that_its_training_kept(
    registry: Registry, sighted: Bundle, colours: Manifest, tmp_path: Path
) -> None:
    keep_manifest(registry, register(registry, "colours", sighted), colours)
    register(registry, "colours", begun_with(str(sighted.directory), sighted, tmp_path / "2"))
    own, before = origins("colours", "2", registry)
    assert before.called == str(sighted.directory)
    assert before.manifest is not None
    assert own.manifest is not None, "by its digest"


@pytest.mark.parametrize("weights", ["models:/colours/9", "models:/elsewhere@champion", "/nowhere/bundle"])
def test_what_is_gone_is_named(registry: Registry, sighted: Bundle, tmp_path: Path, weights: str) -> None:
    register(registry, "colours", begun_with(weights, sighted, tmp_path / "1"))
    before = origins("colours", "1", registry)[1]
    assert (before.manifest, before.foreign, before.absence) == (None, False, f"{weights} is not there any more")


@pytest.mark.parametrize("weights", ["/nowhere/w.safetensors", "az://weights/w"])
def test_a_file_of_weights_says_nothing_of_its_own_training(
    registry: Registry, sighted: Bundle, tmp_path: Path, weights: str
) -> None:
    register(registry, "colours", begun_with(weights, sighted, tmp_path / "1"))
    assert origins("colours", "1", registry)[1] == Origin(weights, foreign=True)
