"""The files of a registered version on this machine."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

from glint.adapters.tracking import quiet


def model_files(version: Any, tracking_uri: str, home: Path | None) -> Path:
    """The folder of an MLflow ModelVersion's artifacts: where they lie, or with `home` a copy below it, made once.

    Another server, and one that began anew, has other models of the same name and number: a copy is none of theirs.
    """
    if home is None:
        return _download(version, tracking_uri, None) / "artifacts"
    made = f"{tracking_uri} {version.source} {version.creation_timestamp}"
    digest = hashlib.sha256(made.encode()).hexdigest()[:12]
    target = home / "models" / str(version.name) / f"{version.version}-{digest}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as directory:
            fetched = _download(version, tracking_uri, directory)
            try:
                fetched.rename(target)
            except OSError:
                if not target.exists():  # otherwise another process was faster
                    raise
    return target / "artifacts"


def _download(version: Any, tracking_uri: str, directory: str | None) -> Path:
    """Download a version's files into `directory`; without one, files that lie on this machine stay in place."""
    import mlflow

    mlflow.set_tracking_uri(tracking_uri)  # by which a models:/ address is looked up
    with quiet():
        uri = f"models:/{version.name}/{version.version}"
        return Path(mlflow.artifacts.download_artifacts(uri, dst_path=directory, tracking_uri=tracking_uri))
