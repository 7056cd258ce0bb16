"""Ray Train around the training loop: its workers, what becomes of their deaths, and of too little memory."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import ray
import ray.exceptions
import ray.train
import torch
import torch.distributed
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError, WorkerHealthCheckTimeoutError

from glint.core.errors import GlintError
from glint.core.progress import Progress
from glint.core.recipe import Recipe
from glint.pipelines.learner import TrainingPlan
from glint.pipelines.loop import KEPT_BY, train_loop
from glint.pipelines.no_process_group import NoProcessGroup

BEST_BY = "val_macro_f1"
WORKER_CPUS = 0.5
"""Logical CPUs of a training worker."""
READING_CPUS = 1
"""That must be left for the tasks of Ray Data which feed the workers: with fewer not one of them would ever run."""
MAX_FAILURES = 3
"""Times that workers may die before training gives up."""
DEATHS = (
    ray.exceptions.RayActorError,
    ray.exceptions.NodeDiedError,
    WorkerHealthCheckFailedError,
    WorkerHealthCheckTimeoutError,
)
LOST_PEER = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer")
"""In what PyTorch says to the workers that are left when one has died: a plain RuntimeError, without a type for it."""
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(256 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}
"""For glibc: keep the memory of tensors for the next step; giving it back each time costs a tenth of the speed."""


@dataclass(frozen=True)
class Workers:
    """How many Ray Train workers; with `least` below `most` as many as there is room for, from epoch to epoch."""

    least: int = 1
    most: int = 1
    use_gpu: bool = False

    def __str__(self) -> str:
        return str(self.least) if self.least == self.most else f"{self.least}:{self.most}"


ONE_WORKER = Workers()


@dataclass(frozen=True)
class Room:
    """How much of Ray there is for the workers of one of `runs` trainings at a time."""

    runs: int = 1
    held_cpus: float = 0.0
    """by whatever else there is, such as a server, while they train"""

    @property
    def num_workers(self) -> int:
        """How many each may have on the CPUs that Ray has now."""
        return max(0, int((_num_cpus() - READING_CPUS - self.held_cpus) / WORKER_CPUS / self.runs))

    def fitted(self, workers: Workers) -> Workers:
        """The workers, of MIN:MAX no more than there is room for: Ray Train itself would fill all CPUs with them."""
        return replace(workers, most=min(workers.most, max(workers.least, self.num_workers)))


def open_room(runs: int = 1, run_cpus: float = 0.0) -> Room:
    """The room that there is now, before any of so many runs has begun, each of which takes `run_cpus` itself."""
    held = _num_cpus() - float(ray.available_resources().get("CPU", 0))
    return Room(runs, held + runs * run_cpus)


def parse_workers(text: str, use_gpu: bool) -> Workers:
    """--workers N or MIN:MAX; raises GlintError for anything else."""
    least, colon, most = text.partition(":")
    try:
        workers = Workers(int(least), int(most if colon else least), use_gpu)
    except ValueError:
        workers = Workers(0, 0)
    if not 1 <= workers.least <= workers.most:
        raise GlintError(f"--workers {text!r} must be a number above 0, or MIN:MAX such as 1:4")
    return workers


def fit(
    directory: Path,
    plan: TrainingPlan,
    workers: Workers,
    room: Room,
    progress: Progress,
    callbacks: Sequence[ray.train.UserCallback] = (),
) -> ray.train.Result:
    """Train in `directory` from its last checkpoint on, with as many of the workers as there is room for.

    When workers die it goes on from the last checkpoint, up to MAX_FAILURES times; where a GPU's memory does not
    suffice, in smaller parts. Ray Train would try again whatever the reason, a mistake in the recipe included.
    """
    deaths = 0
    while True:
        try:
            return _trainer(directory, plan, room.fitted(workers), callbacks).fit()
        except ray.train.TrainingFailedError as error:
            causes = _causes(error)
            died = [_is_death(cause) for cause in causes]
            users = next((cause for cause in causes if isinstance(cause, GlintError)), None)
            if users:
                raise users from None
            if any(isinstance(cause, torch.OutOfMemoryError) for cause in causes):
                plan = _halved(plan, room.fitted(workers))
                part = plan.recipe.optimisation.batch_size // plan.accumulate
                progress.say(
                    f"too little GPU memory: on with {part} images at a time, {plan.accumulate} parts to a step"
                )
                continue
            deaths += 1
            if deaths > MAX_FAILURES or not died or not all(died):
                raise
            progress.say(f"a training worker died ({deaths} of at most {MAX_FAILURES}); going on from the last epoch")


def check_workers(workers: Workers, recipe: Recipe, runs: int = 1, run_cpus: float = 0.0) -> None:
    """Raise GlintError for what Ray would wait for without end, or for a batch in which some worker has no part.

    Of `runs` that train at a time, each of which takes `run_cpus` itself.
    """
    asked = f"--concurrent {runs} with --workers {workers}" if runs > 1 else f"--workers {workers}"
    gpus, needed = ray.cluster_resources().get("GPU", 0), runs * workers.least
    if workers.use_gpu and gpus < needed:
        raise GlintError(f"--gpu with {asked} needs {needed} GPUs; this Ray has {gpus:.0f}")
    if (most := Room(runs, runs * run_cpus).num_workers) < workers.least:
        each = "workers each" if runs > 1 else "workers"
        allowed = f"allow {most} {each}, with {READING_CPUS} left for reading images; GLINT_NUM_CPUS gives it more"
        raise GlintError(f"{asked} is too many for this Ray, whose {_num_cpus():.0f} CPUs {allowed}")
    batch_size, parts = recipe.optimisation.batch_size, recipe.optimisation.accumulate
    mixed = recipe.augmentation.num_mixed
    needed = workers.most * max(parts, mixed)
    if batch_size < needed:
        each = f", of {mixed} images each" if mixed > 1 else ""
        each = f", in recipe.optimisation.accumulate {parts} parts" if parts > mixed else each
        raise GlintError(
            f"recipe.optimisation.batch_size {batch_size} must be at least {needed} for --workers {workers}{each}"
        )


def _num_cpus() -> float:
    return float(ray.cluster_resources().get("CPU", 0))


def _trainer(
    directory: Path, plan: TrainingPlan, workers: Workers, callbacks: Sequence[ray.train.UserCallback]
) -> TorchTrainer:
    return TorchTrainer(
        # Not as a config: Ray's controller would unpickle the plan, and import all that belongs to it.
        functools.partial(train_loop, plan),
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers.most if workers.least == workers.most else (workers.least, workers.most),  # type: ignore[arg-type]
            use_gpu=workers.use_gpu,
            resources_per_worker={"CPU": WORKER_CPUS, "GPU": int(workers.use_gpu)},
        ),
        torch_config=TorchConfig() if workers.most > 1 else NoProcessGroup(),
        run_config=ray.train.RunConfig(
            name=directory.name,
            storage_path=str(directory.parent),
            callbacks=list(callbacks),  # type: ignore[arg-type]
            worker_runtime_env={"env_vars": ALLOCATOR},  # type: ignore[call-arg]
            checkpoint_config=ray.train.CheckpointConfig(
                num_to_keep=1, checkpoint_score_attribute=KEPT_BY, checkpoint_score_order="max"
            ),
        ),
    )


def _halved(plan: TrainingPlan, workers: Workers) -> TrainingPlan:
    accumulate = 2 * plan.accumulate
    if plan.recipe.optimisation.batch_size // accumulate < workers.most:
        raise GlintError(
            "the GPU's memory does not suffice for a single image: choose a smaller image_size or backbone"
        )
    return replace(plan, accumulate=accumulate)


def _causes(error: ray.train.TrainingFailedError) -> list[BaseException]:
    """What each of the workers that failed failed of."""
    failures = getattr(error, "worker_failures", {}).values()
    causes = [(getattr(failure, "cause", None), failure) for failure in failures]
    return [cause if isinstance(cause, BaseException) else failure for cause, failure in causes]


def _is_death(cause: BaseException) -> bool:
    """Whether a worker died, or lost one that did."""
    lost = isinstance(cause, RuntimeError) and any(said in str(cause) for said in LOST_PEER)
    return lost or isinstance(cause, (*DEATHS, torch.distributed.DistError))
