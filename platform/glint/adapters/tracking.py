"""MLflow's tracking: one run for each training, and the files kept with it."""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from glint.adapters.network import reach
from glint.core.errors import GlintError
from glint.core.locks import locked

PORTS = {"http": 80, "https": 443}
ANSWERS_IN_S = 30
EXPERIMENT = "glint"
MANIFEST = "manifest"
"""Folder of a run's files with the manifest that it is trained on."""


class Tracking:
    """Runs of one MLflow tracking server. Connects on first use.

    Under `home` lie the files of a SQLite tracking store, and copies of those fetched from a remote server.
    """

    def __init__(self, tracking_uri: str, home: Path) -> None:
        self.tracking_uri = tracking_uri
        self._home = home
        self._embedded = tracking_uri.startswith("sqlite:///")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.tracking_uri, self._home)

    @cached_property
    def _client(self) -> Any:
        import mlflow

        self.check_answers()
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)
        if self._embedded:
            _make_database(Path(self.tracking_uri.removeprefix("sqlite:///").partition("?")[0]))
        mlflow.set_tracking_uri(self.tracking_uri)
        return mlflow.MlflowClient(self.tracking_uri)

    @property
    def shown_uri(self) -> str:
        """The address for people: without the name and password that a database's may hold."""
        return re.sub(r"^((?!sqlite:|file:)[^:/]+://)[^?]*@", r"\1", self.tracking_uri)

    def check_answers(self) -> None:
        """Raise GlintError where a server's address does not answer, which MLflow would try for minutes.

        Databases and folders are left to MLflow.
        """
        if self.tracking_uri.partition(":")[0].strip().lower() not in PORTS:
            return
        try:
            url = urlsplit(self.tracking_uri)
            port = url.port or PORTS[url.scheme]
        except ValueError:
            port = None
        if port is None or not url.hostname:
            raise GlintError("GLINT_MLFLOW_URI must be an address, such as http://HOST:PORT")
        import requests
        from requests.utils import get_environ_proxies, select_proxy

        if select_proxy(self.tracking_uri, get_environ_proxies(self.tracking_uri)):
            return  # how to come there is MLflow's to know
        reach(url.hostname, port, "GLINT_MLFLOW_URI")
        health = f"{self.tracking_uri.rstrip('/')}/health"
        try:
            # Any answer will do, and MLflow knows of certificates that are named to it alone.
            with suppress(requests.exceptions.SSLError):
                requests.get(health, timeout=ANSWERS_IN_S, allow_redirects=False, stream=True).close()
        except requests.RequestException:
            said = f"{url.hostname}:{port} takes connections and does not answer within {ANSWERS_IN_S} s"
            raise GlintError(f"{said}; check GLINT_MLFLOW_URI") from None

    @cached_property
    def _experiment(self) -> str:
        found = self._client.get_experiment_by_name(EXPERIMENT)
        if found:
            return str(found.experiment_id)
        location = (self._home / "mlflow").as_uri() if self._embedded else None
        return str(self._client.create_experiment(EXPERIMENT, artifact_location=location))

    def open_run(self, name: str, begun: str | None, params: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        """The MLflow run `begun` where it is still unfinished, or the id of a new one with these parameters and tags.

        By its id: who trains the same elsewhere has a run of the same name. Parameters within others are logged as
        `outer.inner`.
        """
        if begun and self._is_unfinished(begun):
            self._client.update_run(begun, status="RUNNING")
            return begun
        run = self._client.create_run(self._experiment, run_name=name, tags=dict(tags)).info.run_id
        for key, value in _flat(params).items():
            self._client.log_param(run, key, value)
        return str(run)

    def _is_unfinished(self, run: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            info = self._client.get_run(run).info
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False  # of another server, or deleted for good
        return bool(info.status != "FINISHED" and info.lifecycle_stage == "active")

    def log_metrics(self, run: str, metrics: Mapping[str, float], step: int) -> None:
        """Log metrics of one step (an epoch)."""
        for name, value in metrics.items():
            self._client.log_metric(run, name, value, step=step)

    def log_file(self, run: str, path: Path, folder: str | None = None) -> None:
        """Keep a file with the run, in a folder of its own where one is named."""
        with quiet():
            self._client.log_artifact(run, str(path), folder)

    def end_run(self, run: str, status: str) -> None:
        """Close a run: FINISHED, FAILED or KILLED."""
        self._client.set_terminated(run, status)

    def _keep_text(self, run: str, path: str, text: str) -> None:
        with quiet():
            self._client.log_text(run, text, path)

    def _kept(self, run: str, folder: str) -> list[str]:
        """The paths of the files in a folder of a run's files."""
        with quiet():
            return [str(file.path) for file in self._client.list_artifacts(run, folder)]

    def _fetched(self, run: str, path: str) -> Path:
        """A file of a run on this machine: itself where it lies here, otherwise a copy."""
        folder = None if self._embedded else self._home / "runs-fetched" / run
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
        with quiet():
            return Path(self._client.download_artifacts(run, path, str(folder) if folder else None))

    def _text(self, run: str, path: str) -> str:
        with quiet(), tempfile.TemporaryDirectory() as folder:
            return Path(self._client.download_artifacts(run, path, folder)).read_text(encoding="utf-8")


def _flat(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in params.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _make_database(path: Path) -> None:
    """Make a SQLite tracking store where there is none, whole or not at all.

    MLflow makes its tables in many steps, some seconds long, and cannot go on where it was interrupted between them.
    """
    import mlflow

    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        return
    with locked(path.with_name(f".{path.name}.lock")):
        if path.exists():
            return
        directory = path.with_name(f".{path.name}.new")
        shutil.rmtree(directory, ignore_errors=True)  # of a process that was killed
        directory.mkdir()
        # Of another name each time: this process holds on to a database by its name.
        made, whole = Path(tempfile.mkdtemp(dir=directory)) / "made.db", directory / "whole.db"
        mlflow.MlflowClient(f"sqlite:///{made}").search_experiments(max_results=1)
        shutil.copyfile(made, whole)  # the first one stays open in this process
        whole.replace(path)
        shutil.rmtree(directory)


@contextmanager
def quiet() -> Iterator[None]:
    """MLflow's advice and progress bars, kept off the terminal while it logs or fetches."""
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
