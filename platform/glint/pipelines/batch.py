"""Batch jobs: every image of an input ends as exactly one outcome in the result store.

    glint batch run --model models:/boards@champion --input manifest.parquet

A job freezes its input as a manifest and scores it in chunks. A chunk's outcomes and its own document, with the counts,
are written in one transaction, so an interrupted job goes on with the chunks that have no document.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data
from pydantic import BaseModel, ConfigDict
from ray.data import Datasource
from ray.data.block import BlockMetadata
from ray.data.datasource import ReadTask

from glint.adapters.images import Images
from glint.core.errors import GlintError
from glint.core.job import CHUNK_ROWS, Chunk, Job, JobStatus, Totals, job_id, num_chunks, summarise
from glint.core.manifest import Manifest
from glint.core.names import check_name
from glint.core.outcome import DEFAULT_TOP_K, ModelRef, Outcome, failed, outcome_id
from glint.core.progress import Progress
from glint.core.stores import Bridge, ResultStore
from glint.pipelines.labels import NONE
from glint.pipelines.loading import Batch, stream_of
from glint.pipelines.scoring import Scored, Scorer, num_nodes
from glint.pipelines.snapshot import snapshot
from glint.vision.predictor import Predictor

ROW_COLUMNS = ("uri", "etag", "size", "labels", "group", "split")


class BatchResult(BaseModel):
    """What a job came to; `scored` counts the images of this run, the rest had their outcomes before."""

    model_config = ConfigDict(frozen=True)

    job: str
    status: JobStatus
    model: ModelRef
    num_images: int
    scored: int
    statuses: dict[str, int]
    labels: dict[str, int]
    decisions: dict[str, int]
    seconds: float
    images_per_s: float


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
    top_k: int = DEFAULT_TOP_K
    job: str | None = None

    @property
    def id(self) -> str:
        """--job, or the hash of bundle, policy, input and options."""
        options = {"top_k": self.top_k, "policy": self.model.policy}
        return self.job or job_id(self.model.bundle, self.manifest.digest, options)


def freeze_input(source: str, images: Images, home: Path, progress: Progress) -> Manifest:
    """The manifest that `source` is, or a new one of the images in the folder or az:// prefix that it names.

    Raises GlintError for a source that is neither, or that holds no images.
    """
    if Path(source).is_file():
        return Manifest.open(source, option="--input")
    name = hashlib.sha256(source.encode()).hexdigest()[:16]
    listing = home / "inputs" / f"{name}.parquet"
    listing.parent.mkdir(parents=True, exist_ok=True)
    snapshot(images, source, listing, labels=NONE, progress=progress)
    return Manifest.open(listing, option="--input")


def run_batch(run: BatchRun, progress: Progress) -> BatchResult:
    """Score what has no outcome yet, and say what the whole job came to.

    Raises GlintError when --job names a job of another model, policy or input.
    """
    started = time.monotonic()
    bridge = Bridge()
    try:
        job = _open_job(run, bridge)
        totals, scored = _run_job(replace(run, manifest=_freeze(run)), job, bridge, progress)
        job = _end_job(run, job, bridge, "completed")
    finally:
        bridge.run(run.store.close())
        bridge.close()
    return _result(job, totals, scored, time.monotonic() - started)


def _run_job(run: BatchRun, job: Job, bridge: Bridge, progress: Progress) -> tuple[Totals, int]:
    """Totals of the whole job, and how many images were scored just now."""
    try:
        totals, done = Totals(), set()
        for chunk in bridge.collect(run.store.chunks(run.id)):
            totals.add(chunk)
            done.add(chunk.chunk)
        before = totals.num_images
        if before:
            progress.say(f"job {run.id}: {before:,} of {job.num_images:,} images have their outcomes already")
        _score(run, [chunk for chunk in range(job.num_chunks) if chunk not in done], totals, progress)
        return totals, totals.num_images - before
    except KeyboardInterrupt:
        _end_job(run, job, bridge, "interrupted")
        raise
    except BaseException as error:
        try:
            _end_job(run, job, bridge, "failed", f"{type(error).__name__}: {error}"[:1000])
        except GlintError as unwritten:
            progress.say(f"job {run.id} could not be marked as failed: {unwritten}")
        raise


def _end_job(run: BatchRun, job: Job, bridge: Bridge, status: JobStatus, error: str | None = None) -> Job:
    ended = job.model_copy(update={"status": status, "ended_at": datetime.now(UTC), "error": error})
    bridge.run(run.store.put_job(ended))
    return ended


def _open_job(run: BatchRun, bridge: Bridge) -> Job:
    check_name("--job", run.id)
    known = bridge.run(run.store.get_job(run.id))
    told = (run.model.bundle, run.model.policy, run.manifest.digest)
    if known and (known.model.bundle, known.model.policy, known.input_digest) != told:
        raise GlintError(f"--job {run.id!r} is a job of another model, policy or input; choose another name")
    job = known or Job(
        id=run.id,
        status="running",
        model=run.model,
        model_uri=run.model_uri,
        input=run.input,
        input_digest=run.manifest.digest,
        manifest=str(_frozen_path(run)),
        num_images=run.manifest.num_rows,
        num_chunks=num_chunks(run.manifest.num_rows),
        options={"top_k": run.top_k},
    )
    bridge.run(run.store.put_job(job.model_copy(update={"status": "running", "ended_at": None, "error": None})))
    return job


def _frozen_path(run: BatchRun) -> Path:
    return run.home / "jobs" / run.id / "manifest.parquet"


def _freeze(run: BatchRun) -> Manifest:
    """A copy of the input that nobody else writes to."""
    path = _frozen_path(run)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        shutil.copyfile(run.manifest.path, partial)
        partial.replace(path)
    return Manifest.open(path)


def _score(run: BatchRun, missing: list[int], totals: Totals, progress: Progress) -> None:
    """Score the missing chunks, adding them to the totals as they are written."""
    if not missing:
        return
    stream = stream_of(ChunkSource(largest_first(run.manifest, missing)), len(missing)).map_batches(
        ScoreChunk,
        fn_constructor_args=(run,),
        batch_size=None,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(size=num_nodes()),
    )
    progress.begin("scoring", run.manifest.num_rows, "images")
    before, started = totals.num_images, time.monotonic()
    progress.update(before)
    for row in stream.iter_rows():
        if row["error"]:
            raise GlintError(row["error"])
        totals.add(Chunk.model_validate_json(row["document"]))
        rate = (totals.num_images - before) / (time.monotonic() - started)
        progress.update(totals.num_images, f"{rate:.0f} images/s  {_brief(totals)}")
    progress.end()


def largest_first(manifest: Manifest, chunks: list[int]) -> list[int]:
    """The chunks by the bytes of their images, so that no large one is left for the end; 8 bytes of memory a chunk."""
    sizes = np.zeros(num_chunks(manifest.num_rows), np.int64)
    row = 0
    for batch in manifest.batches(["size"]):
        numbers = np.arange(row, row + batch.num_rows) // CHUNK_ROWS
        np.add.at(sizes, numbers, batch["size"].fill_null(0).to_numpy(zero_copy_only=False))
        row += batch.num_rows
    return sorted(chunks, key=lambda chunk: -sizes[chunk])


class ChunkSource(Datasource):
    """Chunk numbers, one to a block: a chunk is the unit of work."""

    def __init__(self, chunks: list[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._chunks = chunks

    def estimate_inmemory_data_size(self) -> int | None:
        """Next to nothing."""
        return 8 * len(self._chunks)

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """A task for each chunk."""
        one = BlockMetadata(num_rows=1, size_bytes=8, exec_stats=None, input_files=None)
        return [
            ReadTask(lambda chunk=chunk: _single(chunk), one, per_task_row_limit=per_task_row_limit)  # type: ignore[misc]
            for chunk in self._chunks
        ]


def _single(chunk: int) -> Iterator[pa.Table]:
    yield pa.table({"chunk": [chunk]})


class ScoreChunk:
    """Ray Data stage: scores a chunk, writes its outcomes with its document, and passes the document on."""

    def __init__(self, run: BatchRun) -> None:
        self._run = run
        self._bridge = Bridge()
        self._scorer = Scorer(run.open_predictor, run.images)
        opened = self._scorer.predictor.model
        if (opened.bundle, opened.policy) != (run.model.bundle, run.model.policy):
            raise RuntimeError(f"{run.model_uri} has become another bundle or policy since the job began")

    def __call__(self, batch: Batch) -> Batch:
        """Score the chunks numbered in the column chunk; gives each its document, or the line that says why not.

        A store that is gone is no failure of a task, which Ray would try again and tell in its own words.
        """
        documents, errors = [], []
        for chunk in batch["chunk"]:
            try:
                document, error = self._score(int(chunk)).model_dump_json(), ""
            except GlintError as mistake:
                document, error = "", str(mistake)
            documents.append(document)
            errors.append(error)
        return {"document": np.array(documents, object), "error": np.array(errors, object)}

    def _score(self, chunk: int) -> Chunk:
        started = time.perf_counter()
        rows = self._run.manifest.rows(chunk * CHUNK_ROWS, (chunk + 1) * CHUNK_ROWS).to_pylist()
        scored = self._scorer.score([row["uri"] for row in rows], [row["etag"] for row in rows])
        outcomes = [self._outcome(row, result) for row, result in zip(rows, scored, strict=True)]
        timings = {"total": time.perf_counter() - started}
        for step in ("read", "decode", "infer"):
            timings[step] = sum((result.timings_ms or {}).get(step, 0.0) for result in scored) / 1000
        document = summarise(self._run.id, chunk, outcomes, timings)
        self._bridge.run(self._run.store.put_chunk(document, outcomes))
        return document

    def _outcome(self, row: dict[str, Any], scored: Scored) -> Outcome:
        if scored.error is not None or scored.probabilities is None:
            assert scored.error is not None
            prediction = failed(scored.error)
        else:
            prediction = self._scorer.predictor.interpret(scored.probabilities, self._run.top_k)
        return Outcome(
            **dict(prediction),
            id=outcome_id(self._run.id, row["uri"], row["etag"]),
            job_id=self._run.id,
            uri=row["uri"],
            etag=row["etag"],
            model=self._run.model,
            group=row["group"],
            columns={key: value for key, value in row.items() if key not in ROW_COLUMNS},
            width=scored.width,
            height=scored.height,
            timings_ms={name: round(value, 3) for name, value in (scored.timings_ms or {}).items()},
        )


def _brief(totals: Totals) -> str:
    bad = totals.num_images - totals.statuses["ok"]
    return f"{bad:,} not ok" if bad else ""


def _result(job: Job, totals: Totals, scored: int, seconds: float) -> BatchResult:
    return BatchResult(
        job=job.id,
        status=job.status,
        model=job.model,
        num_images=totals.num_images,
        scored=scored,
        statuses=dict(totals.statuses),
        labels=dict(totals.labels),
        decisions=dict(totals.decisions),
        seconds=round(seconds, 1),
        images_per_s=round(scored / seconds, 1),
    )
