"""Batch jobs: every image of an input ends as exactly one outcome in the result store.

    glint batch run --model models:/boards@champion --input manifest.parquet

A job freezes its input as a manifest and scores it in chunks. A chunk's outcomes and its own document, with the counts,
are written in one transaction, so an interrupted job goes on with the chunks that have no document.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from glint.adapters.images import Images
from glint.core.errors import GlintError, ImageError
from glint.core.job import Bottleneck, Chunk, Job, JobStatus, Totals, num_chunks
from glint.core.job_options import FIXED, JobOptions
from glint.core.manifest import Manifest
from glint.core.names import check_name
from glint.core.outcome import ModelRef
from glint.core.outcome_files import write_parquet
from glint.core.progress import Progress
from glint.core.stores import Bridge, outcome_pages
from glint.core.whole import whole
from glint.pipelines.batch_run import BatchRun, job_folder
from glint.pipelines.bottleneck import Work
from glint.pipelines.chunk_actors import ChunkActors
from glint.pipelines.labels import NONE
from glint.pipelines.snapshot import snapshot

MANIFEST = ".parquet"
FROZEN = "manifest.parquet"
Chunks = np.ndarray[tuple[int], np.dtype[np.int64]]


class BatchResult(BaseModel):
    """What a job came to; `scored` counts the images of this run, the rest had their outcomes before."""

    model_config = ConfigDict(frozen=True)

    job: str
    status: JobStatus
    error: str | None = Field(description="why the job did not complete")
    model: ModelRef
    num_images: int = Field(description="of the whole input")
    scored: int
    unstarted: int = Field(description="images without an outcome, which a further run scores")
    statuses: dict[str, int]
    labels: dict[str, int]
    decisions: dict[str, int]
    seconds: float
    images_per_s: float
    bottleneck: Bottleneck | None = Field(description="null where nothing was scored")
    parquet: str | None = Field(description="file of all outcomes")


def freeze_input(source: str, images: Images, home: Path, progress: Progress, job: str | None = None) -> Manifest:
    """The manifest that `source` is, or a new one of the images in the folder or az:// prefix that it names.

    What ends in .parquet is a manifest, in Blob Storage too. A listing that was interrupted goes on: that of the same
    `job`, or of the same source where no job is named. Raises GlintError for a source that is neither, or that holds no
    images.
    """
    if source.startswith("az://") and source.endswith(MANIFEST):
        return Manifest.open(_fetched(source, images, home), option="--input")
    if Path(source).is_file():
        return Manifest.open(source, option="--input")
    name = hashlib.sha256(source.encode()).hexdigest()[:16]
    listing = home / "inputs" / f"{name}.parquet" if job is None else job_folder(home, job) / "listing.parquet"
    listing.parent.mkdir(parents=True, exist_ok=True)
    try:
        snapshot(images, source, listing, labels=NONE, progress=progress)
    except GlintError as error:
        raise GlintError(str(error).replace("SOURCE", "--input", 1)) from None
    return Manifest.open(listing, option="--input")


def _fetched(source: str, images: Images, home: Path) -> Path:
    try:
        return images.download(source, home / "inputs")
    except ImageError as error:
        raise GlintError(f"--input {source} cannot be read: {error}") from None


def run_batch(run: BatchRun, progress: Progress, node_price: float | None = None) -> BatchResult:
    """Score what has no outcome yet, and say what the whole job came to; `node_price` is that of a node an hour.

    Raises GlintError when --job names a job of another model, policy or input, or begun with other options
    that stay.
    """
    started = time.monotonic()
    bridge = Bridge()
    try:
        job = _open_job(run, bridge)
        options = JobOptions.model_validate(job.options)
        run = replace(run, manifest=Manifest.open(job.manifest), options=options)
        totals, work = _run_job(run, job, bridge, progress)
        unstarted = job.num_images - totals.num_images
        bottleneck = work.bottleneck(node_price)
        job = job.model_copy(update={"bottleneck": bottleneck or job.bottleneck})
        job = _end_job(run, job, bridge, *judged(options, job, totals))
        parquet = _write_parquet(run, bridge) if options.parquet else None
    finally:
        bridge.run(run.store.close())
        bridge.close()
    seconds = time.monotonic() - started
    return BatchResult(
        job=job.id,
        status=job.status,
        error=job.error,
        model=job.model,
        num_images=job.num_images,
        scored=work.num_images,
        unstarted=unstarted,
        statuses=dict(totals.statuses),
        labels=dict(totals.labels),
        decisions=dict(totals.decisions),
        seconds=round(seconds, 1),
        images_per_s=round(work.num_images / seconds, 1),
        bottleneck=bottleneck,
        parquet=parquet,
    )


def judged(options: JobOptions, job: Job, totals: Totals) -> tuple[JobStatus, str | None]:
    """How a job ends whose chunks came to these totals, and why if it did not complete."""
    error, unstarted = options.too_many_errors(totals, job.num_images), job.num_images - totals.num_images
    if error and unstarted:
        return "stopped", f"stopped with {unstarted:,} images unstarted: {error}"
    if unstarted:
        error = f"{unstarted:,} of {job.num_images:,} images have no outcome, although nothing is left to score"
    return ("failed", error) if error else ("completed", None)


def _run_job(run: BatchRun, job: Job, bridge: Bridge, progress: Progress) -> tuple[Totals, Work]:
    """Totals of the whole job, and what was done just now."""
    try:
        totals, missing = _standing(job, run, bridge)
        before = totals.num_images
        if before:
            progress.say(f"job {run.id}: {before:,} of {job.num_images:,} images have their outcomes already")
        work = _score(run, missing, totals, progress)
        if totals.num_images < job.num_images:
            # It was stopped: chunks that were in hand may have been written after all.
            totals, _ = _standing(job, run, bridge)
        return totals, work
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        status: JobStatus = "interrupted" if interrupted else "failed"
        try:
            _end_job(run, job, bridge, status, None if interrupted else f"{type(error).__name__}: {error}"[:1000])
        except GlintError as unwritten:
            progress.say(f"job {run.id} could not be marked as {status}: {unwritten}")
        raise


def _standing(job: Job, run: BatchRun, bridge: Bridge) -> tuple[Totals, Chunks]:
    """Totals of the chunks that have a document, and the numbers of those that have none; a byte of memory for each."""
    totals, missing = Totals(), np.ones(job.num_chunks, bool)
    for chunk in bridge.iterate(run.store.chunks(run.id)):
        totals.add(chunk)
        missing[chunk.chunk] = False
    return totals, np.flatnonzero(missing)


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
        manifest=str(run.folder / FROZEN),
        num_images=run.manifest.num_rows,
        num_chunks=num_chunks(run.manifest.num_rows, run.options.mini_batch_size),
    )
    running = {"status": "running", "ended_at": None, "error": None, "options": _options(run, known).model_dump()}
    job = job.model_copy(update=running | {"manifest": str(run.folder / FROZEN)})
    _freeze(run.manifest, Path(job.manifest))  # before the job is known, or it could be refused for what it lacks
    bridge.run(run.store.put_job(job))
    return job


def _options(run: BatchRun, known: Job | None) -> JobOptions:
    """The options of this run; what is FIXED is as the job was begun."""
    if known is None:
        return run.options
    began = JobOptions.model_validate(known.options)
    for name in FIXED:
        asked, first = getattr(run.options, name), getattr(began, name)
        # The model is opened by now, with the engine that this run asks for, or with `auto`.
        if asked != first and (name in run.options.model_fields_set or name == "engine"):
            raise GlintError(
                f"{name} {asked}: job {run.id!r} was begun with {first}, which stays; ask for that, or choose another "
                "--job"
            )
    return run.options.model_copy(update={name: getattr(began, name) for name in FIXED})


def _freeze(manifest: Manifest, path: Path) -> None:
    """Have a copy of the input at `path` that nobody else writes to; what lies there stays if it has the same rows."""
    with suppress(GlintError):  # there is none, or what is none
        if Manifest.open(path).digest == manifest.digest:
            return
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as partial:
        shutil.copyfile(manifest.path, partial)
        if Manifest.open(partial).digest != manifest.digest:
            raise GlintError(f"--input {manifest.path} was changed while it was copied; run the same command again")


def _write_parquet(run: BatchRun, bridge: Bridge) -> str:
    """All outcomes as a file, a page of them in memory at a time."""
    path = run.folder / "outcomes.parquet"
    with whole(path) as partial:
        bridge.run(write_parquet(partial, outcome_pages(run.store, run.id)))
    return str(path)


def _score(run: BatchRun, missing: Chunks, totals: Totals, progress: Progress) -> Work:
    """Score the missing chunks, adding them to the totals as they are written; stops where too much went wrong."""
    work, num_images = Work(), run.manifest.num_rows
    if not len(missing) or run.options.is_hopeless(totals, num_images):
        return work
    progress.begin("scoring", num_images, "images")
    progress.update(totals.num_images)
    with ChunkActors(run) as actors:
        work.begin(actors.threads())
        for written in actors.score(map(int, largest_first(run.manifest, missing, run.options.mini_batch_size))):
            chunk = Chunk.model_validate_json(written.document)
            totals.add(chunk)
            work.add(chunk, written)
            progress.update(totals.num_images, f"{work.images_per_s:.0f} images/s  {_brief(totals)}")
            if run.options.is_hopeless(totals, num_images):
                break
    work.end()
    progress.end()
    return work


def largest_first(manifest: Manifest, chunks: Chunks, size: int) -> Chunks:
    """The chunks of `size` rows by the bytes of their images, so that no large one is left for the end.

    8 bytes of memory a chunk.
    """
    sizes = np.zeros(num_chunks(manifest.num_rows, size), np.int64)
    row = 0
    for batch in manifest.batches(["size"]):
        numbers = np.arange(row, row + batch.num_rows) // size
        np.add.at(sizes, numbers, batch["size"].fill_null(0).to_numpy(zero_copy_only=False))
        row += batch.num_rows
    return chunks[np.argsort(-sizes[chunks], kind="stable")]


def _brief(totals: Totals) -> str:
    bad = totals.num_images - totals.statuses["ok"]
    return f"{bad:,} not ok" if bad else ""
