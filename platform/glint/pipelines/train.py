"""Training: Ray Data streams into Ray Train workers; the best epoch becomes a bundle and a registered version.

glint train --recipe configs/recipes/boards.yaml --manifest manifest.parquet
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray.train
import safetensors.torch
from pydantic import BaseModel, ConfigDict
from ray.train.backend import Backend
from ray.train.torch import TorchConfig, TorchTrainer

import glint
from glint.adapters.images import Images
from glint.adapters.registry import Registry
from glint.core.classes import class_index
from glint.core.errors import GlintError
from glint.core.manifest import Manifest
from glint.core.names import check_name
from glint.core.progress import Progress
from glint.core.recipe import Recipe
from glint.pipelines.board import Seen, Watcher
from glint.pipelines.loading import Load
from glint.pipelines.loop import TrainingPlan, train_loop
from glint.vision.backbone import build_model, check_backbone
from glint.vision.bundle import Bundle, BundleInfo, write_bundle
from glint.vision.decode import Limits

BEST_BY = "val_macro_f1"
WORKER_CPUS = 0.5
"""Logical CPUs of a training worker; what feeds it needs some too."""
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(256 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}
"""For glibc: keep the memory of tensors for the next step; giving it back each time costs a tenth of the speed."""
BUNDLE_NEEDS = ("numpy", "pandas", "pillow", "pydantic", "pyyaml", "safetensors", "timm", "torch", "torchvision")


class Trained(BaseModel):
    """What a training run came to."""

    model_config = ConfigDict(frozen=True)

    run: str
    mlflow_run: str
    model: str
    version: str
    bundle: str
    bundle_digest: str
    best_epoch: int
    metrics: dict[str, float]
    epochs: int
    train_images: int
    bad_images: int
    seconds: float
    images_per_s: float
    resumed: bool = False

    @property
    def model_uri(self) -> str:
        """How to name this version to the other commands."""
        return f"models:/{self.model}/{self.version}"


@dataclass(frozen=True)
class TrainingRun:
    """A recipe on a manifest: the same two continue the same run."""

    recipe: Recipe
    manifest: Manifest
    images: Images
    limits: Limits
    registry: Registry
    home: Path
    name: str | None = None
    num_workers: int = 1
    use_gpu: bool = False

    @property
    def id(self) -> str:
        """--name, or the hash of recipe and manifest."""
        identity = hashlib.sha256(f"{self.recipe.digest}\0{self.manifest.digest}".encode()).hexdigest()[:12]
        return self.name or f"{self.recipe.name}-{identity}"

    @property
    def directory(self) -> Path:
        """Where the run keeps checkpoints and its bundle."""
        return self.home / "runs" / self.id


def train(run: TrainingRun, progress: Progress, fresh: bool = False) -> Trained:
    """Train, or continue, or say what a finished run came to; `fresh` starts over.

    Raises GlintError for a manifest that cannot train this recipe.
    """
    _check(run)
    if fresh:
        shutil.rmtree(run.directory, ignore_errors=True)
    finished = run.directory / "trained.json"
    if finished.exists():
        progress.say(f"run {run.id} is finished already; --fresh starts over")
        return Trained.model_validate_json(finished.read_bytes()).model_copy(update={"resumed": True})
    run.directory.mkdir(parents=True, exist_ok=True)
    with _mlflow_run(run, fresh) as mlflow_run:
        trained = _train(run, mlflow_run, progress)
    finished.write_text(trained.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return trained


def _train(run: TrainingRun, mlflow_run: str, progress: Progress) -> Trained:
    started = time.monotonic()
    table = labelled_table(run.manifest, "train")
    total = run.recipe.optimisation.epochs * table.num_rows
    resumed = (run.directory / "checkpoint_manager_snapshot.json").exists()
    watcher = Watcher(progress, lambda epochs: _log(run, mlflow_run, epochs, progress))
    result = watcher.run(lambda: _fit(run, table, watcher.board), "training", total)
    _say_bad_images(watcher.seen, progress)
    best, metrics = max(result.best_checkpoints or [], key=lambda kept: float(kept[1][BEST_BY]))
    bundle = _write_bundle(run, best, metrics)
    progress.begin("registering", None, "")
    version = run.registry.register(
        mlflow_run,
        run.recipe.name,
        bundle.directory,
        Path(__file__).with_name("pyfunc_model.py"),
        [Path(glint.__file__).parent],
        [f"{name}=={importlib.metadata.version(name)}" for name in BUNDLE_NEEDS],
        example=_example(run, table),
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
        epochs=run.recipe.optimisation.epochs,
        train_images=table.num_rows,
        bad_images=len(watcher.seen.bad_images),
        seconds=round(time.monotonic() - started, 1),
        images_per_s=round(watcher.seen.images_per_s, 1),
        resumed=resumed,
    )


def _fit(run: TrainingRun, table: pa.Table, board: Any) -> ray.train.Result:
    load = Load(run.images, run.recipe.preprocessing, run.limits)
    val = labelled_table(run.manifest, "val")
    threads = max(1, (os.cpu_count() or 1) // run.num_workers)
    plan = TrainingPlan(run.recipe, run.manifest.classes, table, val, load, threads, board)
    trainer = TorchTrainer(
        train_loop,
        train_loop_config={"plan": plan},
        scaling_config=ray.train.ScalingConfig(
            num_workers=run.num_workers,
            use_gpu=run.use_gpu,
            resources_per_worker={"CPU": WORKER_CPUS, "GPU": int(run.use_gpu)},
        ),
        torch_config=TorchConfig() if run.num_workers > 1 else NoProcessGroup(),
        run_config=ray.train.RunConfig(
            name=run.id,
            storage_path=str(run.directory.parent),
            worker_runtime_env={"env_vars": ALLOCATOR},  # type: ignore[call-arg]
            checkpoint_config=ray.train.CheckpointConfig(
                num_to_keep=1, checkpoint_score_attribute=BEST_BY, checkpoint_score_order="max"
            ),
        ),
    )
    try:
        return trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise _users_mistake(error) or error from None


@dataclass
class NoProcessGroup(TorchConfig):
    """For a single worker, which has nobody to talk to: PyTorch's rendezvous would ask a name server who `::` is."""

    @property
    def backend_cls(self) -> type[Backend]:
        """The backend that sets nothing up."""
        return Backend


def labelled_table(manifest: Manifest, split: str) -> pa.Table:
    """uri, etag and target (class index, int64) of a split's labelled images.

    Raises GlintError when there are none, or when an image has several labels.
    """
    rows = manifest.table(["uri", "etag", "labels"], split=split, labelled=True)
    if rows.num_rows == 0:
        raise GlintError(f"--manifest {manifest.path} has no labelled images in the split {split}")
    if pc.max(pc.list_value_length(rows["labels"])).as_py() > 1:
        raise GlintError(f"--manifest {manifest.path} has images with several labels; glint takes one label an image")
    names = pc.list_flatten(rows["labels"])
    index = class_index(manifest.classes)
    targets = pc.index_in(names, value_set=pa.array(list(index))).cast(pa.int64())
    return rows.drop_columns(["labels"]).append_column("target", targets)


def _check(run: TrainingRun) -> None:
    check_name("--name", run.id)
    _check_resources(run)
    check_backbone(run.recipe.backbone)
    run.recipe.policy.check(run.manifest.classes)
    class_index(run.manifest.classes)
    batch = run.recipe.optimisation.batch_size
    if batch % run.num_workers:
        raise GlintError(f"recipe.optimisation.batch_size {batch} must be a multiple of --workers {run.num_workers}")
    for split in ("train", "val"):
        labelled_table(run.manifest, split)
    if run.recipe.weights != "none":
        # Here, before any worker starts: it fetches the weights, or finds out that they do not fit.
        build_model(run.recipe.backbone, len(run.manifest.classes), run.recipe.weights)


def _check_resources(run: TrainingRun) -> None:
    """Ray would wait without end for what it does not have."""
    there = ray.cluster_resources()
    gpus, cpus = there.get("GPU", 0), there.get("CPU", 0)
    if run.use_gpu and gpus < run.num_workers:
        raise GlintError(f"--gpu with --workers {run.num_workers} needs as many GPUs; this Ray has {gpus:.0f}")
    if run.num_workers * WORKER_CPUS >= cpus:
        most = int((cpus - WORKER_CPUS) / WORKER_CPUS)
        raise GlintError(f"--workers {run.num_workers} is too many for this Ray, whose {cpus:.0f} CPUs allow {most}")


@contextmanager
def _mlflow_run(run: TrainingRun, fresh: bool) -> Iterator[str]:
    """The run in MLflow, ended by how the block ends."""
    params = _flat(run.recipe.model_dump(mode="json"))
    tags = {"glint.manifest": run.manifest.digest, "glint.recipe": run.recipe.digest, "glint.run": run.id}
    mlflow_run = run.registry.open_run(run.id, fresh, params, tags)
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
    epochs = run.recipe.optimisation.epochs
    for metrics in finished:
        step = int(metrics["epoch"]) + 1
        run.registry.log_metrics(mlflow_run, {k: v for k, v in metrics.items() if k != "epoch"}, step)
        progress.say(
            f"epoch {step}/{epochs}: train loss {metrics['train_loss']:.3f}, val macro-F1 {metrics[BEST_BY]:.4f}"
        )


def _write_bundle(run: TrainingRun, best: ray.train.Checkpoint, metrics: dict[str, Any]) -> Bundle:
    info = BundleInfo(
        name=run.recipe.name,
        backbone=run.recipe.backbone,
        classes=run.manifest.classes,
        preprocessing=run.recipe.preprocessing,
        recipe=run.recipe,
        manifest=run.manifest.digest,
        metrics={name: float(value) for name, value in metrics.items() if name.startswith("val_")},
    )
    with best.as_directory() as directory:
        weights = safetensors.torch.load_file(Path(directory) / "weights.safetensors")
    return write_bundle(run.directory / "bundle", info, run.recipe.policy, weights)


def _example(run: TrainingRun, table: pa.Table) -> bytes:
    """The first readable training image, as the registered model's input example."""
    columns = table.slice(0, 100).to_pydict()
    for data in run.images.read_many(columns["uri"], columns["etag"]):
        if not isinstance(data, Exception):
            return bytes(data)
    raise GlintError(f"none of the first training images of {run.manifest.path} can be read")


def _say_bad_images(seen: Seen, progress: Progress) -> None:
    if seen.bad_images:
        reasons = Counter(kind for kind, _ in seen.bad_images.values())
        listed = ", ".join(f"{count} {kind}" for kind, count in reasons.most_common())
        progress.say(f"{len(seen.bad_images)} images were left out: {listed}")
        for uri, (_, message) in sorted(seen.bad_images.items())[:10]:
            progress.say(f"  {uri}: {message}")


def _users_mistake(error: ray.train.TrainingFailedError) -> GlintError | None:
    """The GlintError that a worker raised, if that is why training failed."""
    failures = getattr(error, "worker_failures", {})
    causes = list(failures.values())
    causes += [getattr(failure, "cause", None) for failure in causes]
    return next((cause for cause in causes if isinstance(cause, GlintError)), None)


def _flat(document: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in document.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
