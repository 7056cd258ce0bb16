"""MLflow: one run for each training, and a registry of models with aliases."""

from __future__ import annotations

import logging
import os
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from glint.core.errors import GlintError

BUNDLE = "bundle"
EXPERIMENT = "glint"
_MODEL_URI = re.compile(r"models:/(?P<name>[^/@]+)(@(?P<alias>[^/@]+)|/(?P<version>\d+))")


@dataclass(frozen=True)
class RegisteredModel:
    """A version of a registered model, and where its bundle lies on this machine."""

    name: str
    version: str
    bundle: Path


class Registry:
    """Runs and models of one MLflow tracking server. Connects on first use.

    Under `home` lie the artifacts of a SQLite tracking store, and copies of bundles fetched from a remote server.
    """

    def __init__(self, tracking_uri: str, home: Path) -> None:
        self.tracking_uri = tracking_uri
        self._home = home
        self._embedded = tracking_uri.startswith("sqlite:///")

    def __reduce__(self) -> tuple[Any, ...]:
        return Registry, (self.tracking_uri, self._home)

    @cached_property
    def _client(self) -> Any:
        if self._embedded:
            Path(self.tracking_uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        import mlflow

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)
        mlflow.set_tracking_uri(self.tracking_uri)
        return mlflow.MlflowClient(self.tracking_uri)

    @cached_property
    def _experiment(self) -> str:
        found = self._client.get_experiment_by_name(EXPERIMENT)
        if found:
            return str(found.experiment_id)
        location = (self._home / "mlflow").as_uri() if self._embedded else None
        return str(self._client.create_experiment(EXPERIMENT, artifact_location=location))

    def open_run(self, name: str, fresh: bool, params: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        """The id of the unfinished MLflow run called `name`, or of a new one with these parameters and tags."""
        where = f"attributes.run_name = '{name}' and attributes.status != 'FINISHED'"
        found = [] if fresh else self._client.search_runs([self._experiment], where, max_results=1)
        if found:
            run = found[0].info.run_id
            self._client.update_run(run, status="RUNNING")
            return str(run)
        run = self._client.create_run(self._experiment, run_name=name, tags=dict(tags)).info.run_id
        for key, value in params.items():
            self._client.log_param(run, key, value)
        return str(run)

    def log_metrics(self, run: str, metrics: Mapping[str, float], step: int) -> None:
        """Log metrics of one step (an epoch)."""
        for name, value in metrics.items():
            self._client.log_metric(run, name, value, step=step)

    def log_file(self, run: str, path: Path) -> None:
        """Keep a file with the run."""
        self._client.log_artifact(run, str(path))

    def end_run(self, run: str, status: str) -> None:
        """Close a run: FINISHED, FAILED or KILLED."""
        self._client.set_terminated(run, status)

    def register(
        self,
        run: str,
        name: str,
        bundle: Path,
        model_code: Path,
        packages: Sequence[Path],
        requirements: Sequence[str],
        example: bytes,
    ) -> str:
        """Log a bundle as a pyfunc model of `run` and register it; returns the new version.

        The model is code, not a pickle: `model_code` is run by plain MLflow when it scores, with `packages` beside it.
        glint itself reads the bundle alone and runs none of it.
        """
        import mlflow
        import pandas as pd
        from mlflow.models import ModelSignature
        from mlflow.types import ColSpec, Schema

        signature = ModelSignature(
            Schema([ColSpec("binary", "image")]), Schema([ColSpec("string", "label"), ColSpec("double", "confidence")])
        )
        with _quiet(), mlflow.start_run(run_id=run):
            logged = mlflow.pyfunc.log_model(
                name="model",
                python_model=str(model_code),
                artifacts={BUNDLE: str(bundle)},
                code_paths=[str(package) for package in packages],
                pip_requirements=list(requirements),
                signature=signature,
                input_example=pd.DataFrame({"image": [example]}),
            )
        if name not in dict(self.models()):
            self._client.create_registered_model(name)
        return str(self._client.create_model_version(name, logged.model_uri, run, model_id=logged.model_id).version)

    def find(self, uri: str) -> RegisteredModel:
        """Resolve `models:/NAME@ALIAS` or `models:/NAME/VERSION`, fetching its bundle where it is not on this machine.

        Raises GlintError when there is no such model, version or alias, naming those that there are.
        """
        parts = _MODEL_URI.fullmatch(uri)
        if not parts:
            raise GlintError(f"--model {uri!r} must be models:/NAME@ALIAS, models:/NAME/VERSION or a bundle directory")
        version = self._version(parts["name"], parts["version"], parts["alias"])
        return RegisteredModel(parts["name"], str(version.version), self._bundle(version))

    def promote(self, name: str, version: str, alias: str) -> str | None:
        """Point `alias` at a version; returns the version that it pointed at before."""
        self._version(name, version, None)
        before = self._client.get_registered_model(name).aliases.get(alias)
        from mlflow.exceptions import MlflowException

        try:
            self._client.set_registered_model_alias(name, alias, version)
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            raise GlintError(f"--alias {alias!r} cannot be one: {error.message}") from None
        return str(before) if before else None

    def models(self) -> list[tuple[str, dict[str, str]]]:
        """Registered models by name, with their aliases and the versions that these mean."""
        found = self._client.search_registered_models()
        return sorted((model.name, dict(model.aliases)) for model in found)

    def _version(self, name: str, version: str | None, alias: str | None) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            if alias:
                return self._client.get_model_version_by_alias(name, alias)
            return self._client.get_model_version(name, version)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
        raise GlintError(self._absence(name, version, alias))

    def _absence(self, name: str, version: str | None, alias: str | None) -> str:
        models = dict(self.models())
        if name not in models:
            known = ", ".join(sorted(models)) or "none yet; glint train makes one"
            return f"no model {name!r} is registered at {self.tracking_uri}; there are: {known}"
        if alias:
            aliases = ", ".join(f"{key} -> {value}" for key, value in sorted(models[name].items())) or "none"
            return (
                f"model {name!r} has no alias {alias!r} (aliases: {aliases}); glint promote {name} --version N sets it"
            )
        versions = sorted(int(found.version) for found in self._client.search_model_versions(f"name = '{name}'"))
        return f"model {name!r} has no version {version}; there are: {', '.join(map(str, versions))}"

    def _bundle(self, version: Any) -> Path:
        target = self._home / "models" / str(version.name) / str(version.version)
        if self._embedded:
            target = self._fetch(version, None)
        elif not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent) as directory:
                self._fetch(version, directory).rename(target)
        return target / "artifacts" / BUNDLE

    def _fetch(self, version: Any, directory: str | None) -> Path:
        """Download a version's files into `directory`; without one, files that lie on this machine stay in place."""
        import mlflow

        uri = f"models:/{version.name}/{version.version}"
        with _quiet():
            return Path(mlflow.artifacts.download_artifacts(uri, dst_path=directory, tracking_uri=self.tracking_uri))


@contextmanager
def _quiet() -> Iterator[None]:
    """MLflow's advice and progress bars, kept off the terminal while it logs or fetches a model."""
    before = os.environ.get("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR")
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if before is None:
            del os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"]
        else:
            os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = before
