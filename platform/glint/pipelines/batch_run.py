"""What a batch job works with. It travels to the nodes that score, which need no Ray Data for it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glint.adapters.images import Images
from glint.core.errors import GlintError
from glint.core.job import job_id
from glint.core.job_options import JobOptions
from glint.core.manifest import Manifest
from glint.core.names import check_name
from glint.core.outcome import ModelRef
from glint.core.stores import ResultStore

if TYPE_CHECKING:
    from glint.vision.predictor import Predictor, Preparer

CHUNKS_AT_ONCE = 2
"""Of one process: while the last images of a chunk are scored and written, the next one's fill the threads."""


def job_folder(home: Path, job: str) -> Path:
    """Where the files of a job lie below GLINT_HOME; raises GlintError for a name that would lead out of it."""
    check_name("--job", job)
    return home / "jobs" / job


@dataclass(frozen=True)
class BatchRun:
    """A model over an input, and where its results go. Every part survives the journey to a Ray worker."""

    model_uri: str
    model: ModelRef
    open_predictor: Callable[[], Predictor]
    input: str
    manifest: Manifest
    images: Images
    store: ResultStore
    home: Path
    options: JobOptions = field(default_factory=JobOptions)
    job: str | None = None
    open_preparer: Callable[[], Preparer] | None = None
    """for those who decode and never infer; without it they open the whole model"""

    @property
    def id(self) -> str:
        """--job, or the hash of bundle, policy, input and those options that make other outcomes."""
        options = {"top_k": self.options.top_k, "engine": self.options.engine, "policy": self.model.policy}
        return self.job or job_id(self.model.bundle, self.manifest.digest, options)

    def preparer(self) -> Preparer:
        """What decodes and resizes as the model wants it."""
        return (self.open_preparer or self.open_predictor)()

    def chunk_rows(self, chunk: int) -> list[dict[str, Any]]:
        """The manifest's rows of a chunk; raises GlintError on a node where the manifest is not."""
        size = self.options.mini_batch_size
        try:
            rows: list[dict[str, Any]] = self.manifest.rows(chunk * size, (chunk + 1) * size).to_pylist()
        except FileNotFoundError:
            raise GlintError(
                f"GLINT_HOME must be a folder that all nodes share: the job's input {self.manifest.path} is not there "
                f"on node {socket.gethostname()}"
            ) from None
        return rows

    @property
    def folder(self) -> Path:
        """Where the job's own files lie: its frozen input, its outcomes as Parquet."""
        return job_folder(self.home, self.id)
