import pickle
from pathlib import Path

import pytest

from glint.adapters.registry import Registry
from glint.core.errors import GlintError
from glint.pipelines.train import Trained
from glint.settings import Settings
from glint.wiring import open_registry


@pytest.fixture(scope="module")
def registry(trained: Trained, settings: Settings) -> Registry:
    return open_registry(settings)


def test_a_version_and_its_alias_lead_to_the_same_bundle(registry: Registry, trained: Trained) -> None:
    registry.promote(trained.model, trained.version, "golden")
    by_alias, by_version = registry.find("models:/boards@golden"), registry.find(trained.model_uri)
    assert by_alias == by_version
    assert (by_version.bundle / "weights.safetensors").read_bytes() == Path(
        trained.bundle, "weights.safetensors"
    ).read_bytes()


def test_promoting_says_what_the_alias_meant_before(registry: Registry, trained: Trained) -> None:
    assert registry.promote(trained.model, trained.version, "shift-2") is None
    assert registry.promote(trained.model, trained.version, "shift-2") == trained.version


@pytest.mark.parametrize(
    ("uri", "complaint"),
    [
        ("models:/absent@champion", r"no model 'absent' is registered .*; there are: boards"),
        ("models:/boards@nobody", r"no alias 'nobody' .*glint promote boards --version N sets it"),
        ("models:/boards/99", r"no version 99; there are: 1"),
        ("models:/boards", r"must be models:/NAME@ALIAS, models:/NAME/VERSION or a bundle directory"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(registry: Registry, uri: str, complaint: str) -> None:
    with pytest.raises(GlintError, match=complaint):
        registry.find(uri)


def test_promoting_a_version_that_is_not_there_is_refused(registry: Registry) -> None:
    with pytest.raises(GlintError, match="no version 99"):
        registry.promote("boards", "99", "champion")


def test_registry_travels_closed(registry: Registry, trained: Trained) -> None:
    arrived = pickle.loads(pickle.dumps(registry))  # noqa: S301 - our own
    assert arrived.find(trained.model_uri).version == trained.version


def test_an_interrupted_run_is_taken_up_again_and_a_finished_one_is_not(tmp_path: Path) -> None:
    registry = Registry(f"sqlite:///{tmp_path}/mlflow.db", tmp_path)
    first = registry.open_run("night", False, {"lr": 1}, {})
    registry.end_run(first, "KILLED")
    assert registry.open_run("night", False, {"lr": 1}, {}) == first
    assert registry.open_run("night", True, {"lr": 1}, {}) != first
    registry.end_run(first, "FINISHED")


def test_an_alias_that_cannot_be_one_is_refused(registry: Registry, trained: Trained) -> None:
    with pytest.raises(GlintError, match="--alias 'a b/c' cannot be one"):
        registry.promote(trained.model, trained.version, "a b/c")
