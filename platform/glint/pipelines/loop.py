"""The training loop, as every Ray Train worker runs it."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray.train
import ray.train.torch
import safetensors.torch
import torch
import torch.distributed
import torch.nn.functional as F
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch import nn

from glint.core.metrics import Scores, classification_scores
from glint.core.recipe import Recipe
from glint.pipelines.loading import Batch, Load, Share, image_stream, iter_numpy, training_stream
from glint.vision.backbone import build_model, native_bf16
from glint.vision.transforms import normalise

TOLD_EVERY_S = 0.5


@dataclass(frozen=True)
class TrainingPlan:
    """All that a worker needs to know. Tables have the columns uri, etag and target (the class index)."""

    recipe: Recipe
    classes: tuple[str, ...]
    train: pa.Table
    val: pa.Table
    load: Load
    threads: int
    board: Any
    """Handle of the ProgressBoard actor that the driver watches."""


def train_loop(config: dict[str, Any]) -> None:
    """Train for the recipe's epochs from the last checkpoint on, and report a checkpoint after each."""
    plan: TrainingPlan = config["plan"]
    torch.set_num_threads(plan.threads)
    learner = Learner(plan)
    batches = learner.batches()
    for epoch in range(learner.epoch, plan.recipe.optimisation.epochs):
        loss = train_epoch(learner, batches, epoch)
        report(learner, epoch, loss, validate(learner))


def train_epoch(learner: Learner, batches: Iterator[Batch], epoch: int) -> float:
    """One pass over the training images of this rank; returns the mean loss of its readable ones."""
    learner.model.train()
    total, count, told = 0.0, 0, time.monotonic()
    for step in range(learner.share.steps):
        loss, images = learner.step(next(batches), epoch * learner.share.steps + step)
        total, count = total + loss * images, count + images
        if time.monotonic() - told > TOLD_EVERY_S and learner.rank == 0:
            told = time.monotonic()
            done = (epoch * learner.share.steps + step + 1) * learner.share.batch_size
            learner.plan.board.step.remote(epoch, done, total / max(count, 1))
    return total / max(count, 1)


@torch.no_grad()
def validate(learner: Learner) -> Scores | None:
    """Score every readable validation image, whole; None on the ranks other than the first."""
    learner.model.eval()
    targets, predicted = [], []
    stream = image_stream(learner.plan.val, learner.val_share, learner.plan.load)
    for batch in iter_numpy(stream, learner.share.local_batch):
        good = learner.note_errors(batch)
        with learner.autocast():
            logits = learner.model(learner.pixels(batch))
        predicted.append(logits.argmax(1).cpu().numpy()[good])
        targets.append(batch["target"][good])
    pairs = _gather(np.stack([_joined(targets), _joined(predicted)]))
    return classification_scores(pairs[0], pairs[1], learner.plan.classes) if learner.rank == 0 else None


def report(learner: Learner, epoch: int, loss: float, scores: Scores | None) -> None:
    """Hand the epoch's checkpoint and scores to Ray Train and to the driver."""
    metrics: dict[str, float] = {"epoch": epoch, "train_loss": loss}
    checkpoint = None
    with tempfile.TemporaryDirectory() as directory:
        if scores is not None:
            metrics |= {f"val_{name}": value for name, value in scores.summary().items()}
            learner.save(Path(directory), epoch + 1)
            checkpoint = ray.train.Checkpoint.from_directory(directory)
        ray.train.report(metrics, checkpoint=checkpoint, checkpoint_dir_name=f"epoch_{epoch:05d}")
    if learner.rank == 0:
        ray.get(learner.plan.board.epoch.remote(metrics | {"lr": learner.optimizer.param_groups[0]["lr"]}))


class Learner:
    """Model, optimizer and schedule of one rank, restored from the run's last checkpoint where there is one."""

    def __init__(self, plan: TrainingPlan) -> None:
        context, recipe = ray.train.get_context(), plan.recipe
        self.plan, self.rank = plan, context.get_world_rank()
        world = context.get_world_size()
        self.share = Share(plan.train.num_rows, self.rank, world, recipe.seed, recipe.optimisation.batch_size)
        self.val_share = Share(plan.val.num_rows, self.rank, world)
        self.device = ray.train.torch.get_device()
        self.bf16 = recipe.precision == "bf16" or (recipe.precision == "auto" and native_bf16(self.device))
        torch.manual_seed(recipe.seed)
        checkpoint = ray.train.get_checkpoint()
        network = build_model(recipe.backbone, len(plan.classes), "none" if checkpoint else recipe.weights)
        self.model: nn.Module = ray.train.torch.prepare_model(network)
        self.optimizer = create_optimizer_v2(
            self.network, opt="adamw", lr=recipe.optimisation.lr, weight_decay=recipe.optimisation.weight_decay
        )
        self.schedule = _schedule(self.optimizer, recipe, self.share.steps)
        self.epoch = self.restore(checkpoint) if checkpoint else 0

    @property
    def network(self) -> nn.Module:
        """The model without what distribution wraps around it."""
        inner = getattr(self.model, "module", self.model)
        assert isinstance(inner, nn.Module)
        return inner

    def batches(self) -> Iterator[Batch]:
        """Training batches from the first epoch that is still to do to the last."""
        recipe = self.plan.recipe
        epochs = range(self.epoch, recipe.optimisation.epochs)
        return training_stream(self.plan.train, self.share, self.plan.load, recipe.augmentation, epochs)

    def step(self, batch: Batch, step: int) -> tuple[float, int]:
        """One optimizer step; returns the mean loss over the readable images, and how many they were."""
        good = torch.from_numpy(self.note_errors(batch)).to(self.device)
        targets = torch.from_numpy(batch["target"].copy()).to(self.device)
        smoothing = self.plan.recipe.optimisation.label_smoothing
        with self.autocast():
            logits = self.model(self.pixels(batch))
        losses = F.cross_entropy(logits.float(), targets, reduction="none", label_smoothing=smoothing)
        count = int(good.sum())
        loss = (losses * good).sum() / max(count, 1)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step_update(step + 1)
        return float(loss.detach()), count

    def pixels(self, batch: Batch) -> torch.Tensor:
        """The batch's images on the device, normalised there: they travel as uint8."""
        settings = self.plan.recipe.preprocessing
        return normalise(torch.from_numpy(batch["image"].copy()).to(self.device), settings.mean, settings.std)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """bfloat16 where the recipe or the hardware asks for it."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def note_errors(self, batch: Batch) -> np.ndarray[Any, Any]:
        """Tell the driver of images that could not be read or decoded; returns which could, bool (N,)."""
        good = batch["error_type"] == ""
        for i in np.flatnonzero(~good):
            self.plan.board.bad_image.remote(str(batch["uri"][i]), str(batch["error_type"][i]), str(batch["error"][i]))
        return np.asarray(good, dtype=bool)

    def save(self, directory: Path, next_epoch: int) -> None:
        """Write a checkpoint: the weights as safetensors, the optimizer beside them."""
        weights = {name: tensor.contiguous() for name, tensor in self.network.state_dict().items()}
        safetensors.torch.save_file(weights, directory / "weights.safetensors")
        torch.save({"epoch": next_epoch, "optimizer": self.optimizer.state_dict()}, directory / "state.pt")

    def restore(self, checkpoint: ray.train.Checkpoint) -> int:
        """Continue from a checkpoint; returns the next epoch."""
        with checkpoint.as_directory() as directory:
            self.network.load_state_dict(safetensors.torch.load_file(Path(directory) / "weights.safetensors"))
            state = torch.load(Path(directory) / "state.pt", map_location="cpu", weights_only=True)
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.step_update(state["epoch"] * self.share.steps)
        return int(state["epoch"])


def _schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int) -> CosineLRScheduler:
    settings = recipe.optimisation
    return CosineLRScheduler(
        optimizer,
        t_initial=settings.epochs * steps,
        warmup_t=round(settings.warmup_epochs * steps),
        warmup_lr_init=settings.lr / 100,
        t_in_epochs=False,
    )


def _joined(parts: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def _gather(pairs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Join (2, n) arrays of all ranks along the second axis."""
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return pairs
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, pairs)
    return np.concatenate(parts, axis=1)
