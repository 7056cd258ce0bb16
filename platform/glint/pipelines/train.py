"""Training: Ray Data streams into Ray Train workers; the best epoch becomes a bundle and a registered version.

glint train --recipe configs/recipes/boards.yaml --manifest manifest.parquet
"""

from __future__ import annotations

import importlib.metadata
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import ray
import ray.train
import torch

import glint
from glint.adapters.tracking import MANIFEST
from glint.core.errors import GlintError
from glint.core.names import check_name
from glint.core.outcome import counted
from glint.core.progress import Progress
from glint.core.whole import write_whole
from glint.pipelines.access import readable
from glint.pipelines.board import Seen, Watcher
from glint.pipelines.checkpoint_bundle import checkpoint_bundle
from glint.pipelines.engines import add_engines
from glint.pipelines.fitting import BEST_BY, check_workers, fit, open_room
from glint.pipelines.learner import TrainingPlan
from glint.pipelines.loading import CACHE_SHARE, Load, cache_images
from glint.pipelines.loop import KEPT_BY
from glint.pipelines.run_checks import check_network, check_run
from glint.pipelines.run_state import alone_in, check_identity, last_epoch, write_identity
from glint.pipelines.targets import labelled_table
from glint.pipelines.training_run import Trained, TrainingRun
from glint.vision.backbone import build_and_report

TRAINED = "trained.json"
"""What a finished run came to, in its directory."""
MLFLOW_RUN = "mlflow_run"
"""The id of its run in MLflow, in its directory."""
EXAMPLES_AT_ONCE = 100
"""Images that are read for one that is readable."""
MAX_NAMED = 10
"""Bad images that are told by name."""
BUNDLE_NEEDS = (
    "numpy",
    "openvino",
    "pandas",
    "pillow",
    "pydantic",
    "pyyaml",
    "safetensors",
    "timm",
    "torch",
    "torchvision",
)


def train(run: TrainingRun, progress: Progress, fresh: bool = False) -> Trained:
    """Train, or continue, or say what a finished run came to; `fresh` starts over.

    Raises GlintError for a manifest that cannot train this recipe, for the --name of another run, and while another
    process trains this one.
    """
    if not fresh and (before := finished(run, progress)):
        return before
    check_run(run)
    check_workers(run.workers, run.recipe)
    with alone_in(run.directory):
        if not fresh and (before := finished(run, progress)):  # by whoever was in there until now
            return before
        identity = run.identity  # while its weights are there
        if not fresh:
            check_identity(run.directory, identity)
        elif Path(run.weights).exists() and Path(run.weights).resolve().is_relative_to(run.directory.resolve()):
            raise GlintError(
                f"recipe.weights {run.weights} belong to the run that --fresh forgets; take another --name"
            )
        started = time.monotonic()
        plan = make_plan(run, progress)  # first: weights that do not fit shall cost no earlier run, and leave none
        if fresh:
            shutil.rmtree(run.directory, ignore_errors=True)
        write_identity(run.directory, identity)
        with _mlflow_run(run) as mlflow_run:
            run.registry.log_file(mlflow_run, run.manifest.path, MANIFEST)
            trained = _train(run, plan, mlflow_run, started, progress)
        write_whole(run.directory / TRAINED, trained.model_dump_json(indent=2) + "\n")
    return trained


def finished(run: TrainingRun, progress: Progress) -> Trained | None:
    """What a finished run came to, telling so; None for any other. Needs no Ray, and no weights where it has a --name.

    Raises GlintError for the --name of another run.
    """
    check_name("--name", run.name or run.recipe.name)
    if not (run.directory / TRAINED).exists():
        return None
    check_identity(run.directory, run.known_identity)
    progress.say(f"run {run.id} is finished already; --fresh starts over")
    text = (run.directory / TRAINED).read_bytes()
    return Trained.model_validate_json(text).model_copy(update={"resumed": True})


def _train(run: TrainingRun, plan: TrainingPlan, mlflow_run: str, started: float, progress: Progress) -> Trained:
    """Train by the plan, which was made from `started` on, by time.monotonic."""
    begun = last_epoch(run.directory)
    if begun is not None:
        progress.say(f"going on after {f'epoch {begun} of {plan.epochs}' if begun else 'the frozen phase'}")
    watcher = Watcher(progress, lambda epochs: _log(run, mlflow_run, epochs, progress))
    plan = replace(plan, board=watcher.board)
    room = open_room()
    if room.num_workers < run.workers.least:
        progress.say(f"others hold {room.held_cpus:g} of Ray's CPUs: --workers {run.workers} may have to wait for them")
    result = watcher.run(lambda: fit(run.directory, plan, run.workers, room, progress), "training", plan.num_images)
    epochs = last_epoch(run.directory) or 0
    if epochs < plan.epochs:
        patience = run.recipe.optimisation.patience
        progress.say(f"ended after epoch {epochs} of {plan.epochs}: no better score in {patience} epochs")
    _say_bad_images(watcher.seen, progress)
    best, metrics = max(result.best_checkpoints or [], key=lambda kept: float(kept[1][KEPT_BY]))
    bundle = checkpoint_bundle(run.directory / "bundle", plan, run.manifest, best, metrics)
    bundle = add_engines(bundle, run.manifest, run.images, run.limits, progress)
    progress.begin("registering", None, "")
    version = run.registry.register(
        mlflow_run,
        run.recipe.name,
        bundle.directory,
        Path(__file__).with_name("pyfunc_model.py"),
        [Path(glint.__file__).parent],
        [f"{name}=={importlib.metadata.version(name)}" for name in BUNDLE_NEEDS],
        example=_example(run, plan.train),
    )
    progress.end()
    return Trained(
        run=run.id,
        mlflow_run=mlflow_run,
        model=run.recipe.name,
        version=version,
        bundle=str(bundle.directory),
        bundle_digest=bundle.digest,
        best_epoch=int(metrics["epoch"]) + 1,
        metrics=dict(bundle.info.metrics),
        epochs=epochs,
        train_images=plan.train.num_rows,
        bad_images=len(watcher.seen.bad_images),
        seconds=round(time.monotonic() - started, 1),
        images_per_s=round(pace, 1) if (pace := watcher.seen.images_per_s) is not None else None,
        resumed=begun is not None,
    )


def make_plan(run: TrainingRun, progress: Progress, cache_share: float = CACHE_SHARE) -> TrainingPlan:
    """What the workers are told. The model to begin with is made here, so that they need neither hub nor files.

    `cache_share` of the object store may be taken by decoded images.
    """
    recipe = run.exact_recipe
    train, val = (labelled_table(run.manifest, split, multi_label=run.multi_label) for split in ("train", "val"))
    load = Load(run.images, recipe.preprocessing, run.limits)
    torch.manual_seed(recipe.seed)
    network, report = build_and_report(
        recipe.backbone,
        run.manifest.classes,
        run.weights,
        in_chans=recipe.preprocessing.num_channels,
        image_size=recipe.preprocessing.image_size,
        source=recipe.weights,
    )
    if report:
        progress.say(report.line())
    check_network(network, recipe)
    progress.begin("reading images", None, "")
    caches = cache_images([train, val], load, cache_share)
    progress.end()
    return TrainingPlan(
        recipe=recipe,
        classes=run.manifest.classes,
        train=train,
        val=val,
        load=load,
        initial=ray.put(network.state_dict()),
        accumulate=recipe.optimisation.accumulate,
        train_cache=caches[0],
        val_cache=caches[1],
    )


@contextmanager
def _mlflow_run(run: TrainingRun) -> Iterator[str]:
    """The run in MLflow that this one began, or a new one; ended by how the block ends."""
    params = run.recipe.model_dump(mode="json")
    tags = {"glint.manifest": run.manifest.digest, "glint.recipe": run.recipe.digest, "glint.run": run.id}
    noted = run.directory / MLFLOW_RUN
    begun = noted.read_text(encoding="utf-8") if noted.exists() else None
    mlflow_run = run.registry.open_run(run.id, begun, params, tags)
    write_whole(noted, mlflow_run)
    try:
        yield mlflow_run
    except KeyboardInterrupt:
        run.registry.end_run(mlflow_run, "KILLED")
        raise
    except BaseException:
        run.registry.end_run(mlflow_run, "FAILED")
        raise
    run.registry.end_run(mlflow_run, "FINISHED")


def _log(run: TrainingRun, mlflow_run: str, finished: list[dict[str, float]], progress: Progress) -> None:
    for metrics in finished:
        step = int(metrics["epoch"]) + 1
        run.registry.log_metrics(mlflow_run, {k: v for k, v in metrics.items() if k != "epoch"}, step)
        what = f"epoch {step}/{run.recipe.optimisation.epochs}" if step else "head on frozen features"
        what += f" on {metrics['workers']:.0f} of {run.workers} workers" if run.workers.most > 1 else ""
        progress.say(f"{what}: train loss {metrics['train_loss']:.3f}, val macro-F1 {metrics[BEST_BY]:.4f}")


def _example(run: TrainingRun, table: pa.Table) -> bytes:
    """The first readable training image, as the registered model's input example."""
    first = next(readable(table, run.images, EXAMPLES_AT_ONCE), None)
    if first is None:
        raise GlintError(f"none of the training images of {run.manifest.path} can be read any more")
    return first


def _say_bad_images(seen: Seen, progress: Progress) -> None:
    if seen.bad_images:
        reasons = counted(Counter(kind for kind, _ in seen.bad_images.values()))
        progress.say(f"{len(seen.bad_images)} images were left out: {reasons}")
        for uri, (_, message) in sorted(seen.bad_images.items())[:MAX_NAMED]:
            progress.say(f"  {uri}: {message}")
        if (unnamed := len(seen.bad_images) - MAX_NAMED) > 0:
            progress.say(f"  and {unnamed:,} more")
