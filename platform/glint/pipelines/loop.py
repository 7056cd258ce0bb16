"""The training loop, as every Ray Train worker runs it."""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.train
import safetensors.torch
import torch

from glint.core.errors import GlintError
from glint.core.metrics import Scores
from glint.pipelines.frozen import train_head
from glint.pipelines.gathering import gather_rows
from glint.pipelines.learner import Learner, TrainingPlan
from glint.pipelines.loading import Batch, image_batches
from glint.pipelines.targets import UNREADABLE, scores_of, target_array
from glint.vision.views import with_views

TOLD_EVERY_S = 0.5
HEAD = -1
"""The number of the epoch that stands for the frozen phase."""
KEPT_BY, NOT_KEPT = "kept_as_epoch", -2
"""Ray Train keeps the checkpoint where this is highest: the epoch where it takes the kept one's place, else less."""
EPOCHS_DONE = "epochs_done"
"""What Ray Tune counts by: 0 after the frozen phase, 1 after the first epoch."""


def train_loop(plan: TrainingPlan) -> None:
    """Train for the recipe's epochs from the last checkpoint on, and report a checkpoint after each."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // ray.train.get_context().get_local_world_size()))
    learner = Learner(plan)
    started = time.monotonic()
    if plan.recipe.strategy != "full" and not learner.resumed:
        loss = _checked(train_head(learner), "frozen.lr", plan.recipe.frozen.lr)
        report(learner, HEAD, loss, time.monotonic() - started, validate(learner))
    batches = learner.batches()
    for epoch in range(learner.epoch, plan.epochs):
        if learner.finished:
            break
        started = time.monotonic()
        loss = _checked(train_epoch(learner, batches, epoch), "optimisation.lr", plan.recipe.optimisation.lr)
        report(learner, epoch, loss, time.monotonic() - started, validate(learner))


def train_epoch(learner: Learner, batches: Iterator[Batch], epoch: int) -> float:
    """One pass over the training images; returns the mean loss of the readable ones of all ranks."""
    size = learner.begin(epoch)
    total, count, told = torch.zeros((), device=learner.device), 0, time.monotonic()
    for step in range(learner.share.steps):
        loss, images = learner.step(next(batches), epoch * learner.share.steps + step, size)
        total, count = total + loss, count + images
        if time.monotonic() - told > TOLD_EVERY_S and learner.rank == 0:
            told = time.monotonic()
            done = (epoch * learner.share.steps + step + 1) * learner.share.batch_size + learner.plan.num_frozen
            learner.plan.board.step.remote(epoch, done, float(total) / max(count, 1))
    readable = learner.sum(count)
    if not readable:
        raise GlintError(UNREADABLE)
    return learner.sum(float(total)) / readable


def _checked(loss: float, setting: str, lr: float) -> float:
    """The loss; raises GlintError where it is no number any more."""
    if not math.isfinite(loss):
        raise GlintError(f"training diverged: its loss is {loss} with recipe.{setting} {lr:g}; choose a lower one")
    return loss


@torch.no_grad()
def validate(learner: Learner) -> np.ndarray[Any, Any]:
    """The logits (N, C) of all validation images in the order of their table; NaN for those that cannot be read."""
    plan = learner.plan
    learner.share_buffers()
    model = with_views(learner.judged, plan.recipe.views).eval()
    size = max(1, learner.part // plan.recipe.num_views)
    logits = [np.zeros((0, len(plan.classes)), dtype=np.float32)]
    for batch in image_batches(plan.val, learner.val_share, plan.load, size, plan.val_cache):
        good = learner.note_errors(batch)
        with learner.autocast():
            found = model(learner.pixels(batch)).float().cpu().numpy()
        if not np.isfinite(found[good]).all():
            raise GlintError("training diverged: logits of validation are no numbers any more; choose a lower lr")
        logits.append(np.where(good[:, None], found, np.nan))
    return gather_rows(np.concatenate(logits), plan.val.num_rows)


def report(learner: Learner, epoch: int, loss: float, train_s: float, logits: np.ndarray[Any, Any]) -> None:
    """Hand the epoch's checkpoint and scores to Ray Train and to the driver; every rank comes to the same scores."""
    plan = learner.plan
    scores: Scores = scores_of(logits, target_array(plan.val), plan.classes)
    kept = epoch if learner.note_score(scores.macro_f1) else NOT_KEPT
    metrics: dict[str, float] = {"epoch": epoch, "train_loss": loss, "train_s": train_s, "bf16": float(learner.bf16)}
    metrics["workers"] = learner.world
    metrics |= {f"val_{name}": value for name, value in scores.summary().items()}
    checkpoint = None
    with tempfile.TemporaryDirectory() as directory:
        if learner.rank == 0:
            learner.save(Path(directory), epoch + 1)
            safetensors.torch.save_file({"logits": torch.from_numpy(logits)}, Path(directory) / "val.safetensors")
            checkpoint = ray.train.Checkpoint.from_directory(directory)
        told = metrics | {KEPT_BY: kept, EPOCHS_DONE: epoch + 1}
        ray.train.report(told, checkpoint=checkpoint, checkpoint_dir_name=f"epoch_{epoch + 1:05d}")
    if learner.rank == 0:
        ray.get(plan.board.epoch.remote(metrics | {"lr": learner.optimizer.param_groups[-1]["lr"]}))
