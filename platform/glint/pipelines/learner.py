"""What one training worker holds: model, optimizer, schedule and averaged weights, and a step of them."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.train
import ray.train.torch
import safetensors.torch
import torch
import torch.distributed
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import nn

from glint.core.intervals import within_one_standard_error
from glint.core.recipe import Recipe
from glint.pipelines.growing import image_size, resized
from glint.pipelines.loading import Batch, ImageCache, Load, sample_seeds, training_stream
from glint.pipelines.share import Share
from glint.pipelines.targets import balanced_weights, target_array
from glint.vision.backbone import build_model, native_bf16
from glint.vision.losses import image_losses
from glint.vision.mixing import Mixing, erase
from glint.vision.transforms import normalise, sample_seed


@dataclass(frozen=True)
class TrainingPlan:
    """All that a worker needs to know. Tables have the columns uri, etag and target (see pipelines/targets.py)."""

    recipe: Recipe
    classes: tuple[str, ...]
    train: pa.Table
    val: pa.Table
    load: Load
    initial: Any
    """Reference to the state of the model to begin with."""
    board: Any = None
    """Handle of the ProgressBoard actor that the driver watches."""
    accumulate: int = 1
    """Parts of a step that go through the model one by one."""
    train_cache: ImageCache | None = None
    val_cache: ImageCache | None = None

    @property
    def epochs(self) -> int:
        """Passes over the images in which the whole network learns."""
        return 0 if self.recipe.strategy == "probe" else self.recipe.optimisation.epochs

    @property
    def num_frozen(self) -> int:
        """Images that go through the frozen backbone, each view counted."""
        views = 0 if self.recipe.strategy == "full" else self.recipe.frozen.views
        return views * int(self.train.num_rows)

    @property
    def num_images(self) -> int:
        """Images that go through the network from the beginning to the end."""
        return self.num_frozen + self.epochs * int(self.train.num_rows)


class Learner:
    """The training state of one rank, restored from the run's last checkpoint where there is one."""

    def __init__(self, plan: TrainingPlan) -> None:
        context, recipe = ray.train.get_context(), plan.recipe
        settings = recipe.optimisation
        self.plan, self.rank, self.world = plan, context.get_world_rank(), context.get_world_size()
        batch, balanced, unit = settings.batch_size, settings.sampling == "balanced", recipe.augmentation.num_mixed
        self.share = Share(plan.train.num_rows, self.rank, self.world, recipe.seed, batch, balanced, unit)
        self.val_share = Share(plan.val.num_rows, self.rank, self.world)
        self.device = ray.train.torch.get_device()
        self.bf16 = recipe.precision == "bf16" or (recipe.precision == "auto" and native_bf16(self.device))
        self.model: nn.Module = ray.train.torch.prepare_model(_network(plan))
        self.forward = torch.compile(self.model) if settings.compile else self.model
        self.optimizer = create_optimizer_v2(
            self.network,
            opt=settings.optimizer,
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            layer_decay=settings.layer_decay,
        )
        self.schedule = _schedule(self.optimizer, recipe, self.share.steps)
        self.average = ModelEmaV3(self.network, settings.ema_decay, use_warmup=True) if settings.ema_decay else None
        self.mixing = _mixing(recipe, len(plan.classes))
        self.class_weights = self._class_weights()
        self.epoch, self.best, self.stale = 0, -1.0, 0
        """The next epoch, the best score so far, and the epochs since."""
        checkpoint = ray.train.get_checkpoint()
        self.resumed = checkpoint is not None
        if checkpoint:
            self.restore(checkpoint)

    @property
    def network(self) -> nn.Module:
        """The model without what distribution wraps around it."""
        inner = getattr(self.model, "module", self.model)
        assert isinstance(inner, nn.Module)
        return inner

    @property
    def judged(self) -> nn.Module:
        """The network that is validated and kept: the averaged one where the recipe asks for it."""
        return self.average.module if self.average else self.network

    @property
    def part(self) -> int:
        """Images of this rank that go through the network at a time."""
        return max(1, self.share.local_batch // self.plan.accumulate)

    @property
    def finished(self) -> bool:
        """Whether the recipe's patience is at its end."""
        patience = self.plan.recipe.optimisation.patience
        return patience is not None and self.stale >= patience

    def batches(self) -> Iterator[Batch]:
        """Training batches from the first epoch that is still to do to the last."""
        plan = self.plan
        epochs = range(self.epoch, plan.epochs)
        return training_stream(plan.train, self.share, plan.load, plan.recipe.augmentation, epochs, plan.train_cache)

    def begin(self, epoch: int) -> int:
        """Make an epoch's draws its own, whatever came before; returns the side of its images, pixels."""
        seed = sample_seed(self.plan.recipe.seed, epoch, f"rank {self.rank}")
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        self.model.train()
        return image_size(self.plan.recipe, epoch)

    def step(self, batch: Batch, step: int, size: int) -> tuple[torch.Tensor, int]:
        """One optimizer step; returns the sum of the losses of the readable images of this rank, and their number.

        The sum stays on the device: to read it at each step would keep a GPU waiting.
        """
        good = torch.from_numpy(self.note_errors(batch))
        targets = torch.from_numpy(batch["target"].copy()).to(self.device)
        pixels = resized(self.pixels(batch), size)
        augmentation = self.plan.recipe.augmentation
        if augmentation.erase:
            pixels = erase(pixels, augmentation.erase, sample_seeds(batch, self.plan.recipe.seed, "erase "))
        if self.mixing:
            pixels, targets, good = self.mixing(pixels, targets, good)
        total = self._backward(pixels, targets, good)
        if self.plan.recipe.optimisation.clip_norm:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.plan.recipe.optimisation.clip_norm)
        self.optimizer.step()
        self.schedule.step_update(step + 1)
        if self.average:
            self.average.update(self.network, step + 1)
        return total, int(good.sum())

    def _backward(self, pixels: torch.Tensor, targets: torch.Tensor, good: torch.Tensor) -> torch.Tensor:
        """Gradients of the mean loss over all ranks' readable images, in parts; returns the sum of this rank's."""
        self.optimizer.zero_grad()
        # Distribution averages the ranks' gradients, so each is scaled for the mean to be over images.
        scale = self.world / max(self.sum(int(good.sum())), 1)
        each = (pixels, targets, good.to(self.device, non_blocking=True))
        parts = list(zip(*(one.tensor_split(self.plan.accumulate) for one in each), strict=True))
        total = torch.zeros((), device=self.device)
        for i, (images, truth, counted) in enumerate(parts):
            with self._no_sync(i < len(parts) - 1):
                with self.autocast():
                    logits = self.forward(images)
                losses = (self.losses(logits, truth) * counted).sum()
                (losses * scale).backward()
            total += losses.detach()
        return total

    def losses(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The recipe's loss, by image."""
        settings = self.plan.recipe.optimisation
        return image_losses(
            logits,
            targets,
            multi_label=self.plan.recipe.task == "multi",
            label_smoothing=settings.label_smoothing,
            focal_gamma=settings.focal_gamma,
            class_weights=self.class_weights,
        )

    def sum(self, number: float) -> float:
        """The sum over all ranks."""
        if self.world == 1:
            return number
        total = torch.tensor(float(number), device=self.device)
        torch.distributed.all_reduce(total)
        return float(total)

    def share_buffers(self) -> None:
        """Give rank 0's running statistics of batches, which it saves, to all ranks, for them to validate what is kept.

        Distribution does so for the network at the beginning of a step alone, and never for the averaged weights.
        """
        if self.world > 1:
            for buffer in (*self.network.buffers(), *(self.average.module.buffers() if self.average else ())):
                torch.distributed.broadcast(buffer, 0)

    def pixels(self, batch: Batch) -> torch.Tensor:
        """The batch's images on the device, normalised there: they travel as uint8."""
        return normalise(
            torch.from_numpy(batch["image"].copy()).to(self.device), *self.plan.recipe.preprocessing.normalisation
        )

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """bfloat16 where the recipe or the hardware asks for it."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def note_errors(self, batch: Batch) -> np.ndarray[Any, Any]:
        """Tell the driver of images that could not be read or decoded; returns which could, bool (N,)."""
        good = batch["error_type"] == ""
        for i in np.flatnonzero(~good):
            self.plan.board.bad_image.remote(str(batch["uri"][i]), str(batch["error_type"][i]), str(batch["error"][i]))
        return np.asarray(good, dtype=bool)

    def note_score(self, score: float) -> bool:
        """Whether this epoch takes the kept one's place; counts the epochs without a better score."""
        self.stale = 0 if score > self.best else self.stale + 1
        self.best = max(self.best, score)
        return within_one_standard_error(score, self.best, self.plan.val.num_rows)

    def save(self, directory: Path, next_epoch: int) -> None:
        """Write a checkpoint: the weights that would serve as safetensors, what training needs besides in state.pt."""
        weights = {name: tensor.contiguous() for name, tensor in self.judged.state_dict().items()}
        safetensors.torch.save_file(weights, directory / "weights.safetensors")
        state = {
            "epoch": next_epoch,
            "best": self.best,
            "stale": self.stale,
            "optimizer": self.optimizer.state_dict(),
            "network": self.network.state_dict() if self.average else None,
        }
        torch.save(state, directory / "state.pt")

    def restore(self, checkpoint: ray.train.Checkpoint) -> None:
        """Continue from a checkpoint."""
        with checkpoint.as_directory() as directory:
            weights = safetensors.torch.load_file(Path(directory) / "weights.safetensors")
            state = torch.load(Path(directory) / "state.pt", map_location="cpu", weights_only=True)
        self.network.load_state_dict(state["network"] or weights)
        if self.average:
            self.average.module.load_state_dict(weights)
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.best, self.stale = int(state["epoch"]), float(state["best"]), int(state["stale"])
        self.schedule.step_update(self.epoch * self.share.steps)

    def _class_weights(self) -> torch.Tensor | None:
        if self.plan.recipe.optimisation.class_weights == "none":
            return None
        weights = balanced_weights(target_array(self.plan.train), len(self.plan.classes))
        return torch.from_numpy(weights).to(self.device)

    def _no_sync(self, skip: bool) -> contextlib.AbstractContextManager[Any]:
        """Leave gradients as they are until the last part of a step."""
        if skip and isinstance(self.model, nn.parallel.DistributedDataParallel):
            return self.model.no_sync()
        return contextlib.nullcontext()


def _network(plan: TrainingPlan) -> nn.Module:
    settings = plan.recipe.preprocessing
    network = build_model(plan.recipe.backbone, len(plan.classes), "none", settings.num_channels, settings.image_size)
    network.load_state_dict(ray.get(plan.initial))
    return network


def _mixing(recipe: Recipe, num_classes: int) -> Mixing | None:
    mixup, cutmix = recipe.augmentation.mixup, recipe.augmentation.cutmix
    return Mixing(mixup, cutmix, num_classes, recipe.task == "multi") if mixup or cutmix else None


def _schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int) -> CosineLRScheduler:
    settings = recipe.optimisation
    return CosineLRScheduler(
        optimizer,
        t_initial=settings.epochs * steps,
        warmup_t=round(settings.warmup_epochs * steps),
        warmup_lr_init=settings.lr / 100,
        t_in_epochs=False,
    )
