import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from tests.colours import register

from glint.adapters.model_files import _download as download
from glint.adapters.registry import Registry
from glint.adapters.tracking import MANIFEST
from glint.core.errors import GlintError
from glint.pipelines.training_run import Trained
from glint.serving.addresses import free_port, wait_until_answering
from glint.settings import Settings
from glint.vision.bundle import Bundle
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
    first = registry.open_run("night", None, {"lr": 1}, {})
    registry.end_run(first, "KILLED")
    assert registry.open_run("night", first, {"lr": 1}, {}) == first
    assert registry.open_run("night", "0" * 32, {"lr": 1}, {}) != first, "that of another server"
    assert registry.open_run("night", None, {"lr": 1}, {}) != first, "somebody else may train the same"
    registry.end_run(first, "FINISHED")
    assert registry.open_run("night", first, {"lr": 1}, {}) != first


def test_an_alias_that_cannot_be_one_is_refused(registry: Registry, trained: Trained) -> None:
    with pytest.raises(GlintError, match="--alias 'a b/c' cannot be one"):
        registry.promote(trained.model, trained.version, "a b/c")


# Policies, and the way back. Versions without training: what they say is not asked for.


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """A registry of these tests' own."""
    home = tmp_path_factory.mktemp("registry")
    return Registry(f"sqlite:///{home}/mlflow.db", home)


@pytest.fixture
def versions(own: Registry, bundle: Bundle, tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Registry, str]:
    """A model with three versions, named after the test."""
    copy = Bundle(Path(shutil.copytree(bundle.directory, tmp_path / "artifacts" / "bundle")))
    name = request.node.name
    assert [register(own, name, copy) for _ in range(3)] == ["1", "2", "3"]
    return own, name


def test_policies_are_numbered_and_the_last_one_made_is_active(versions: tuple[Registry, str]) -> None:
    registry, name = versions
    assert (registry.policy(name, "1"), registry.policy_number(name, "1"), registry.policies(name, "1")) == (
        None,
        0,
        {},
    )
    assert registry.put_policy(name, "1", '{"review_below": 0.7}', {"by": "anna"}) == 1
    assert registry.put_policy(name, "1", '{"review_below": 0.8}', {"by": "ben"}) == 2
    assert registry.policy(name, "1") == '{"review_below": 0.8}'
    assert registry.policies(name, "1") == {1: {"by": "anna"}, 2: {"by": "ben"}}
    found = registry.find(f"models:/{name}/1")
    assert (found.policy_number, found.policy) == (2, '{"review_below": 0.8}')
    assert registry.policy(name, "2") is None, "another version decides for itself"


def test_an_earlier_policy_or_the_bundles_own_can_be_made_active_again(versions: tuple[Registry, str]) -> None:
    registry, name = versions
    for text in ("one", "two"):
        registry.put_policy(name, "3", text)
    registry.use_policy(name, "3", 1)
    assert (registry.policy(name, "3"), registry.policy(name, "3", 2), registry.policy(name, "3", 0)) == (
        "one",
        "two",
        None,
    )
    registry.use_policy(name, "3", 0)
    assert (registry.policy(name, "3"), registry.find(f"models:/{name}/3").policy) == (None, None)
    assert registry.put_policy(name, "3", "three") == 3
    with pytest.raises(GlintError, match=r"--version 4 is no policy of models:/.*/3; there are: 0, 1, 2, 3"):
        registry.use_policy(name, "3", 4)


def test_rolling_back_walks_back_through_what_the_alias_meant(versions: tuple[Registry, str]) -> None:
    registry, name = versions
    for version in ("1", "2", "2", "3", "1"):
        registry.promote(name, version, "champion")
    walked = [registry.rollback(name, "champion") for _ in range(3)]
    assert walked == [("3", "1"), ("2", "3"), ("1", "2")]
    assert registry.alias(name, "champion") == "1"
    with pytest.raises(GlintError, match=rf"nothing to go back to: models:/{name}@champion is version 1, "):
        registry.rollback(name, "champion")


def test_rolling_back_knows_what_was_promoted_since(versions: tuple[Registry, str]) -> None:
    registry, name = versions
    for version in ("1", "2"):
        registry.promote(name, version, "champion")
    registry.rollback(name, "champion")
    registry.promote(name, "3", "champion")
    assert registry.rollback(name, "champion") == ("1", "3")


def test_rolling_back_passes_over_versions_that_were_deleted(versions: tuple[Registry, str]) -> None:
    registry, name = versions
    for version in ("1", "2", "3"):
        registry.promote(name, version, "champion")
    mlflow.MlflowClient(registry.tracking_uri).delete_model_version(name, "2")
    assert registry.rollback(name, "champion") == ("1", "3")


def test_aliases_have_histories_of_their_own(versions: tuple[Registry, str]) -> None:
    registry, name = versions
    registry.promote(name, "1", "champion")
    registry.promote(name, "2", "canary")
    registry.promote(name, "3", "canary")
    assert registry.rollback(name, "canary") == ("2", "3")
    assert registry.alias(name, "champion") == "1"
    for alias, complaint in (("champion", "nothing to go back to"), ("nobody", "no alias 'nobody'")):
        with pytest.raises(GlintError, match=complaint):
            registry.rollback(name, alias)


def test_records_of_promotions_and_rollbacks_are_tags_of_the_version(versions: tuple[Registry, str]) -> None:
    registry, name = versions
    registry.promote(name, "1", "champion", {"gate": "passed"})
    registry.promote(name, "2", "champion", {"gate": "approved", "reason": "new camera"})
    registry.rollback(name, "champion", {"by": "anna"})
    client = mlflow.MlflowClient(registry.tracking_uri)
    tags = client.get_model_version(name, "2").tags
    assert json.loads(tags["glint.promotion.champion"]) == {"gate": "approved", "reason": "new camera"}
    assert json.loads(tags["glint.rollback.champion"]) == {"by": "anna"}


def test_a_later_promotion_leaves_the_record_of_an_earlier_one(versions: tuple[Registry, str]) -> None:
    registry, name = versions
    records = [{"gate": "approved", "reason": "new camera"}, {"gate": "unchecked"}, {"gate": "passed"}]
    for record in records:
        registry.promote(name, "1", "champion", record)
    tags = mlflow.MlflowClient(registry.tracking_uri).get_model_version(name, "1").tags
    keys = ("glint.promotion.champion.1", "glint.promotion.champion.2", "glint.promotion.champion")
    assert [json.loads(tags[key]) for key in keys] == records


def test_the_manifest_of_a_run_is_found_by_its_version(versions: tuple[Registry, str], tmp_path: Path) -> None:
    registry, name = versions
    assert registry.training_manifest(name, "1") is None
    path = tmp_path / "manifest.parquet"
    path.write_bytes(b"rows")
    run = mlflow.MlflowClient(registry.tracking_uri).get_model_version(name, "1").run_id
    registry.log_file(run, path, MANIFEST)
    kept = registry.training_manifest(name, "1")
    assert kept is not None
    assert kept != path
    assert kept.read_bytes() == b"rows"


def test_reports_of_the_gate_lie_with_the_run(versions: tuple[Registry, str]) -> None:
    registry, name = versions
    registry.keep_report(name, "1", '{"refused": []}')
    client = mlflow.MlflowClient(registry.tracking_uri)
    run = client.get_model_version(name, "1").run_id
    (kept,) = client.list_artifacts(run, "gate")
    assert Path(client.download_artifacts(run, kept.path)).read_text() == '{"refused": []}'


def test_the_alias_of_an_unknown_model_is_named_with_those_that_there_are(versions: tuple[Registry, str]) -> None:
    registry, name = versions
    assert registry.alias(name, "champion") is None
    with pytest.raises(GlintError, match="no model 'absent' is registered"):
        registry.alias("absent", "champion")


def test_two_registries_in_one_process_keep_to_their_own(trained: Trained, settings: Settings, tmp_path: Path) -> None:
    ours = open_registry(settings)
    other = Registry(f"sqlite:///{tmp_path / 'other.db'}", tmp_path)
    assert other.models() == []
    assert ours.find(trained.model_uri).version == trained.version


def test_more_models_than_a_page_of_the_registry_holds_are_all_known(
    own: Registry, bundle: Bundle, tmp_path: Path
) -> None:
    names = [f"many-{number:03}" for number in range(101)]
    for name in names:
        own._client.create_registered_model(name)
    assert set(names) <= set(dict(own.models()))
    assert register(own, names[-1], bundle) == "1", "of one that there is already"


def test_a_server_that_does_not_answer_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(GlintError, match=r"127\.0\.0\.1:9 does not answer .* check GLINT_MLFLOW_URI"):
        Registry("http://127.0.0.1:9", tmp_path).models()


def test_a_server_that_takes_connections_and_does_not_answer_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glint.adapters.tracking.ANSWERS_IN_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(GlintError, match=rf"^127\.0\.0\.1:{port} takes connections .* check GLINT_MLFLOW_URI$"):
            Registry(f"http://127.0.0.1:{port}", tmp_path).models()


def test_a_server_is_shown_without_its_password_and_an_address_that_is_none_is_told(tmp_path: Path) -> None:
    shown = Registry("postgresql://name:se/cr@et@db.example.com/a", tmp_path).shown_uri
    assert shown == "postgresql://db.example.com/a"
    assert Registry("sqlite:////home/a@b/mlflow.db", tmp_path).shown_uri == "sqlite:////home/a@b/mlflow.db"
    for wrong in ("http://mlflow:port", "http://", "http://[::1"):
        with pytest.raises(GlintError, match=r"^GLINT_MLFLOW_URI must be an address, such as http://HOST:PORT$"):
            Registry(wrong, tmp_path).check_answers()


def test_a_database_is_left_to_mlflow(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as database:
        database.settimeout(0)
        port = database.getsockname()[1]
        Registry(f"postgresql://name:secret@127.0.0.1:{port}/mlflow", tmp_path).check_answers()
        with pytest.raises(BlockingIOError):  # nobody has come
            database.accept()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An MLflow server of its own."""
    monkeypatch.setattr("glint.serving.addresses.READY_TIMEOUT_S", 120)
    port = free_port("127.0.0.1", 0)
    kept = [f"sqlite:///{tmp_path}/server.db", "--artifacts-destination", f"{tmp_path}/artifacts"]
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
    quiet = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with subprocess.Popen([*command, "--backend-store-uri", *kept], start_new_session=True, env=quiet) as process:
        try:
            wait_until_answering("127.0.0.1", port, "/health")
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGTERM)


@pytest.mark.slow
def test_bundles_of_a_server_are_fetched_once_and_never_those_of_an_earlier_model(
    server: str, sighted: Bundle, blind: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def digest(registry: Registry) -> str:
        return Bundle(registry.find("models:/colours/1").bundle).digest

    def upload(registry: Registry, bundle: Bundle) -> None:
        run = registry.open_run("colours", None, {}, {})
        registry._client.log_artifacts(run, str(bundle.directory), "model/artifacts/bundle")
        registry._make("colours")
        assert registry._client.create_model_version("colours", f"runs:/{run}/model", run).version == "1"

    def slowly(*asked: Any) -> Path:
        """Another process is faster."""
        fetched = download(*asked)
        with monkeypatch.context() as there:
            there.setattr("glint.adapters.model_files._download", download)
            assert digest(Registry(server, tmp_path / "home")) == sighted.digest
        return fetched

    registry = Registry(server, tmp_path / "home")
    upload(registry, sighted)
    with monkeypatch.context() as late:
        late.setattr("glint.adapters.model_files._download", slowly)
        assert digest(registry) == sighted.digest
    with monkeypatch.context() as once:
        once.delattr("glint.adapters.model_files._download")
        assert digest(registry) == sighted.digest
    registry._client.delete_registered_model("colours")
    upload(registry, blind)
    assert digest(registry) == blind.digest


def test_a_database_that_was_interrupted_while_it_was_made_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(engine: Any) -> None:
        with engine.connect() as connection:
            connection.exec_driver_sql("CREATE TABLE _alembic_tmp_experiments (a)")
        raise KeyboardInterrupt

    uri = f"sqlite:///{tmp_path}/home/mlflow.db"
    with monkeypatch.context() as patched:
        patched.setattr("mlflow.store.db.utils._initialize_tables", interrupted)
        with pytest.raises(KeyboardInterrupt):
            Registry(uri, tmp_path).models()
    assert not (tmp_path / "home" / "mlflow.db").exists()
    assert Registry(uri, tmp_path).models() == []
    assert sorted(path.name for path in (tmp_path / "home").iterdir()) == [".mlflow.db.lock", "mlflow.db"]
