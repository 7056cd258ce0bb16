"""The stages of glint demo: the same calls that the other verbs make, one after the other on one Ray."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel
from rich.console import RenderableType

from glint.adapters.blob_upload import Uploaded, upload
from glint.adapters.cosmos_setup import MAX_RU, create_schema
from glint.cli.console import typed
from glint.cli.gating import promote
from glint.cli.starting import start
from glint.cli.tables import rows
from glint.core.manifest import Manifest
from glint.core.progress import Progress
from glint.core.recipe import read_recipe
from glint.pipelines.batch import BatchResult, freeze_input, run_batch
from glint.pipelines.batch_run import BatchRun
from glint.pipelines.boards import write_boards
from glint.pipelines.evaluate import evaluate
from glint.pipelines.evaluation import Evaluation
from glint.pipelines.snapshot import Summary, snapshot
from glint.pipelines.train import train
from glint.pipelines.training_run import Trained, TrainingRun
from glint.serving.online import start_online, stop_online
from glint.settings import Settings
from glint.wiring import (
    cosmos_address,
    open_blob_account,
    open_images,
    open_limits,
    open_model,
    open_registry,
    open_store,
    pinned,
    pinned_preparer,
    serving_sources,
)

T = TypeVar("T")
IMAGE_SIZE = 96
RECIPE = resources.files("glint") / "recipes" / "boards.yaml"
VAL_LOTS = ("L08",)
TEST_LOTS = ("L06", "L09")
NUM_REQUESTS = 20


class Answers(BaseModel):
    """What the server answered to a few of the boards."""

    requests: int
    right: int
    median_ms: float


class Stage(BaseModel):
    """One stage: what came of it, in words, and how long it took."""

    name: str
    seconds: float
    result: str


class Demo(BaseModel):
    """All that the demo made."""

    folder: str
    stages: list[Stage]
    seconds: float
    macro_f1: float
    accuracy: float
    outcomes: dict[str, int]
    decisions: dict[str, int]
    next: list[str]


def demonstrate(
    folder: Path, num_images: int, upload_to: str | None, seed: int, settings: Settings, progress: Progress
) -> Demo:
    """Run every stage, in order; with `upload_to`, an az:// prefix, on images that lie there."""
    folder = folder.absolute()
    stages = _Stages(progress)
    pictures, manifest_path = folder / "images", folder / "manifest.parquet"
    stages.run(
        "boards", lambda: _generate(pictures, num_images, seed, progress), lambda n: f"{n:,} images in {pictures}"
    )
    if settings.store_uri.startswith("cosmos://"):
        stages.run("store", lambda: _make_store(settings), lambda uri: f"{uri} is ready")
    source = upload_to or str(pictures)
    if upload_to:
        account = open_blob_account(settings)
        stages.run("upload", lambda: upload(account, str(pictures), source, progress), _upload_text)
    labels = pictures / "labels.csv"
    stages.run("snapshot", lambda: _snapshot(source, labels, manifest_path, settings, progress), _snapshot_text)
    stages.run("Ray", lambda: start(settings, progress), lambda _: "started on this machine")
    manifest = Manifest.open(manifest_path)
    recipe = folder / "recipe.yaml"
    recipe.write_bytes(RECIPE.read_bytes())
    run = TrainingRun(
        recipe=read_recipe(recipe, (f"seed={seed}",)),
        manifest=manifest,
        images=open_images(settings),
        limits=open_limits(settings),
        registry=open_registry(settings),
        home=settings.home_path,
    )
    trained = stages.run("train", lambda: train(run, progress), _train_text)
    stages.run(
        "promote",
        lambda: promote(run.registry, trained.model, trained.version, "champion", None, "a demonstration"),
        lambda _: f"models:/{trained.model}@champion is version {trained.version}",
    )
    model = f"models:/{trained.model}@champion"
    report = folder / "report"
    evaluation = stages.run("evaluate", lambda: _evaluate(model, manifest, report, settings, progress), _scores_text)
    batch = stages.run("batch", lambda: _batch(model, manifest_path, settings, progress), _batch_text)
    stages.run("serve", lambda: _serve(model, manifest, settings), _answers_text)
    return Demo(
        folder=str(folder),
        stages=stages.done,
        seconds=round(sum(stage.seconds for stage in stages.done), 1),
        macro_f1=evaluation.macro_f1,
        accuracy=evaluation.accuracy,
        outcomes=batch.statuses,
        decisions=batch.decisions,
        next=[
            f"python3 -m webbrowser {(report / 'report.html').absolute().as_uri()}",
            typed(f"batch results {batch.job} --format csv"),
            typed(f"serve --model {model}"),
        ],
    )


def shown(result: Demo) -> list[RenderableType]:
    """The closing table, and what to try next."""
    lines = [(stage.name, f"{stage.seconds:.1f} s", stage.result) for stage in result.stages]
    total = ("", f"{result.seconds:.1f} s", "")
    return [rows(["stage", "time", "result"], [*lines, total]), "\nTry next:", *(f"  {line}" for line in result.next)]


class _Stages:
    """Runs stages, and keeps how long each took."""

    def __init__(self, progress: Progress) -> None:
        self.done: list[Stage] = []
        self._progress = progress

    def run(self, name: str, work: Callable[[], T], text: Callable[[T], str]) -> T:
        started = time.monotonic()
        self._progress.begin(name, None, "")
        result = work()
        self._progress.end()
        self.done.append(Stage(name=name, seconds=round(time.monotonic() - started, 1), result=text(result)))
        return result


def _generate(folder: Path, num_images: int, seed: int, progress: Progress) -> int:
    progress.begin("drawing boards", num_images, "images")
    return write_boards(folder, num_images, seed, IMAGE_SIZE, progress.update)


def _make_store(settings: Settings) -> str:
    address = cosmos_address(settings)
    asyncio.run(create_schema(address, MAX_RU))
    return address.uri


def _snapshot(source: str, labels: Path, out: Path, settings: Settings, progress: Progress) -> Summary:
    return snapshot(open_images(settings), source, out, str(labels), "lot", VAL_LOTS, TEST_LOTS, progress)


def _evaluate(model: str, manifest: Manifest, report: Path, settings: Settings, progress: Progress) -> Evaluation:
    found = open_model(model, settings)
    return evaluate(
        found.bundle, found.ref, pinned(found, settings), manifest, "test", open_images(settings), report, progress
    )


def _batch(model: str, manifest: Path, settings: Settings, progress: Progress) -> BatchResult:
    found, images = open_model(model, settings), open_images(settings)
    run = BatchRun(
        model_uri=found.uri,
        model=found.ref,
        open_predictor=pinned(found, settings),
        open_preparer=pinned_preparer(found, settings),
        input=str(manifest),
        manifest=freeze_input(str(manifest), images, settings.home_path, progress),
        images=images,
        store=open_store(settings),
        home=settings.home_path,
    )
    return run_batch(run, progress)


def _serve(model: str, manifest: Manifest, settings: Settings) -> Answers:
    test = manifest.table(["uri", "labels"], split="test").to_pylist()
    sample = test[:: max(1, len(test) // NUM_REQUESTS)][:NUM_REQUESTS]
    images = open_images(settings)
    url = start_online(serving_sources([model], settings), port=0, logs=settings.home_path / "logs")
    try:
        answers = [_ask(url, images.read(row["uri"])) for row in sample]
    finally:
        stop_online()
    right = sum(label in row["labels"] for (label, _), row in zip(answers, sample, strict=True))
    times = sorted(milliseconds for _, milliseconds in answers)
    return Answers(requests=len(answers), right=right, median_ms=times[len(times) // 2])


def _ask(url: str, image: bytes) -> tuple[str, float]:
    request = urllib.request.Request(f"{url}/v1/classify", image, {"Content-Type": "image/jpeg"})
    started = time.perf_counter()
    with urllib.request.urlopen(request, timeout=60) as response:
        answer = json.load(response)
    return answer["label"], (time.perf_counter() - started) * 1000


def _upload_text(done: Uploaded) -> str:
    return f"{done.uploaded:,} files uploaded, {done.skipped:,} were there already"


def _snapshot_text(summary: Summary) -> str:
    counts = ", ".join(f"{sum(classes.values()):,} {split}" for split, classes in summary.counts.items())
    return f"{counts}; {len(summary.classes)} classes"


def _train_text(trained: Trained) -> str:
    macro_f1 = trained.metrics["val_macro_f1"]
    pace = "" if trained.images_per_s is None else f", {trained.images_per_s:.0f} images/s"
    return f"{trained.model_uri}, validation macro-F1 {macro_f1:.4f}{pace}"


def _scores_text(scores: Evaluation) -> str:
    return (
        f"macro-F1 {scores.macro_f1:.4f}, accuracy {scores.accuracy:.4f} on {scores.num_images:,} images of unseen lots"
    )


def _batch_text(result: BatchResult) -> str:
    counts = ", ".join(f"{count:,} {name}" for name, count in {**result.statuses, **result.decisions}.items())
    return f"{result.num_images:,} outcomes: {counts}"


def _answers_text(answers: Answers) -> str:
    return f"{answers.requests} requests, {answers.right} right, {answers.median_ms:.0f} ms each"
