"""The frozen phase: the head learns on features that the backbone computes once for each image and view."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch import nn

from glint.core.errors import GlintError
from glint.pipelines.gathering import gather_rows
from glint.pipelines.loading import Augment, Batch, image_batches, image_stream, iter_numpy
from glint.pipelines.share import Share
from glint.pipelines.targets import UNREADABLE, target_array

if TYPE_CHECKING:
    from glint.pipelines.learner import Learner

FEATURE_BATCH = 64
"""Images through the backbone at a time, at most; fewer where a step goes through it in smaller parts."""


def train_head(learner: Learner) -> float:
    """Fit the classifier to cached features on the first rank and give it to all; returns the last epoch's mean loss.

    Every image goes through the backbone once as it is, and once more for each further view.
    """
    classifier = linear_head(learner.network)
    views = [cached_features(learner, view) for view in range(learner.plan.recipe.frozen.views)]
    loss = _fit(learner, classifier, np.stack(views)) if learner.rank == 0 else 0.0
    for parameter in classifier.parameters():
        if learner.world > 1:
            torch.distributed.broadcast(parameter.data, 0)
    if learner.average:
        learner.average.set(learner.network)
    return learner.sum(loss)


def linear_head(network: nn.Module) -> nn.Linear:
    """The classifier of a timm model; raises GlintError where it is no linear layer on pooled features."""
    classifier = network.get_classifier()  # type: ignore[operator]
    if not isinstance(classifier, nn.Linear) or not hasattr(network, "forward_head"):
        raise GlintError("recipe.strategy must be full for this backbone: its head is not one linear layer")
    return classifier


@torch.no_grad()
def cached_features(learner: Learner, view: int) -> np.ndarray[Any, Any]:
    """Pooled features (N, D), float16, of all training images in the order of their table; NaN where unreadable.

    View 0 is the image as it is, the others are augmented as epochs of their own.
    """
    plan = learner.plan
    network: Any = learner.network.eval()
    found = [np.zeros((0, linear_head(network).in_features), dtype=np.float16)]
    for batch in _view(learner, view):
        good = learner.note_errors(batch)
        with learner.autocast():
            features = network.forward_head(network.forward_features(learner.pixels(batch)), pre_logits=True)
        with np.errstate(over="ignore"):
            halves = features.float().cpu().numpy().astype(np.float16)
        if not np.isfinite(halves[good]).all():
            raise GlintError(f"recipe.strategy must be full: features of {plan.recipe.backbone} are beyond float16")
        found.append(np.where(good[:, None], halves, np.float16(np.nan)))
        if learner.rank == 0:
            done = view * plan.train.num_rows + sum(map(len, found)) * learner.world
            plan.board.step.remote(-1, done, float("nan"))
    return gather_rows(np.concatenate(found), plan.train.num_rows)


def _view(learner: Learner, view: int) -> Iterator[Batch]:
    plan = learner.plan
    share, size = replace(learner.val_share, num_rows=plan.train.num_rows), min(FEATURE_BATCH, learner.part)
    if view == 0:
        return image_batches(plan.train, share, plan.load, size, plan.train_cache)
    augment: Any = Augment(plan.recipe.augmentation, plan.recipe.seed)
    stream = image_stream(plan.train, share, plan.load, range(view, view + 1), plan.train_cache)
    return iter_numpy(stream.map_batches(augment, batch_size=None, batch_format="numpy"), size)


def _fit(learner: Learner, classifier: nn.Linear, views: np.ndarray[Any, Any]) -> float:
    """Train on features (K, N, D): in each epoch, every image by one of its views.

    A view that could not be read, where the image as it is could, is replaced by that one.
    """
    settings, device = learner.plan.recipe.frozen, learner.device
    readable = np.flatnonzero(~np.isnan(views[0]).any(1))
    if not len(readable):
        raise GlintError(UNREADABLE)
    views = views[:, readable]
    for view in views[1:]:
        lost = np.isnan(view).any(1)
        view[lost] = views[0, lost]
    features = torch.from_numpy(views)  # not on the device: all of them may take more than it has
    truth = target_array(learner.plan.train)[readable]
    targets = torch.from_numpy(truth).to(device)
    optimizer = create_optimizer_v2(classifier, opt="adamw", lr=settings.lr, weight_decay=settings.weight_decay)
    steps = -(-len(readable) // settings.batch_size)
    schedule = CosineLRScheduler(optimizer, t_initial=settings.epochs * steps, t_in_epochs=False)
    generator = np.random.default_rng((learner.plan.recipe.seed, len(readable)))
    share = Share(len(readable), seed=learner.plan.recipe.seed, balanced=True)
    total = 0.0
    for epoch in range(settings.epochs):
        chosen = generator.integers(len(views), size=len(readable))
        total = 0.0
        order = share.rows(epoch, truth) if learner.share.balanced else generator.permutation(len(readable))
        for step, rows in enumerate(np.array_split(order, steps)):
            losses = learner.losses(classifier(features[chosen[rows], rows].to(device).float()), targets[rows])
            optimizer.zero_grad()
            losses.mean().backward()
            optimizer.step()
            schedule.step_update(epoch * steps + step + 1)
            total += float(losses.sum().detach())
    return total / len(readable)
