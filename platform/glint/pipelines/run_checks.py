"""What can be known to be wrong with a training run before Ray starts and images are read."""

from __future__ import annotations

import difflib

import torch
from timm.optim import create_optimizer_v2, list_optimizers
from torch import nn

from glint.core.classes import class_index
from glint.core.errors import GlintError, one_line
from glint.core.names import check_name
from glint.core.recipe import Recipe
from glint.pipelines.frozen import linear_head
from glint.pipelines.growing import SIZE_STEP
from glint.pipelines.targets import labelled_table
from glint.pipelines.training_run import TrainingRun
from glint.vision.backbone import check_backbone, check_hub, hub_normalisation, is_hub


def check_run(run: TrainingRun) -> None:
    """Raise GlintError for a run that cannot be."""
    recipe = run.recipe
    check_backbone(recipe.backbone)
    check_optimizer(recipe.optimisation.optimizer, run.workers.use_gpu)
    check_normalisation(recipe)
    check_name("--name", run.id)
    if not run.manifest.classes:
        raise GlintError(f"--manifest {run.manifest.path} has no labelled images; glint snapshot --labels adds labels")
    recipe.policy.check(run.manifest.classes)
    class_index(run.manifest.classes)
    for split in ("train", "val"):
        labelled_table(run.manifest, split, multi_label=run.multi_label)


def check_optimizer(name: str, use_gpu: bool = False) -> None:
    """Raise GlintError unless timm has an optimizer of that name, which without a GPU is seen to make a step."""
    known = [str(one) for one in list_optimizers()]
    if name.removeprefix("lookahead_") in known:
        if not use_gpu:
            _try_step(name)
        return
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(close)}?" if close else "such as adamw, sgd, lamb or lion"
    raise GlintError(f"recipe.optimisation.optimizer {name!r} is not one of timm's; {hint}")


def _try_step(name: str) -> None:
    network = nn.Linear(2, 2)
    try:  # some need what is not installed, a GPU, or a second derivative
        optimizer = create_optimizer_v2(network, opt=name, lr=1e-3)
        network(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    except (AssertionError, ImportError, RuntimeError, TypeError, ValueError) as error:
        reason = f"does not run here: {one_line(error)}; such as adamw, sgd, lamb or lion do"
        raise GlintError(f"recipe.optimisation.optimizer {name!r} {reason}") from None


def check_normalisation(recipe: Recipe) -> None:
    """Raise GlintError where the hub's weights know images normalised otherwise, and the recipe does not say which."""
    settings = recipe.preprocessing
    if not is_hub(recipe.weights) or settings.model_fields_set & {"mean", "std"}:
        return
    check_hub(recipe.backbone, recipe.weights)
    mean, std = hub_normalisation(recipe.backbone, recipe.weights)
    if (mean, std) != (settings.mean, settings.std):
        raise GlintError(
            f"recipe.weights {recipe.weights!r}: {recipe.backbone} was trained on images normalised otherwise than by "
            f"default; set recipe.preprocessing.mean: {list(mean)} and std: {list(std)}, or those of your choice"
        )


@torch.no_grad()
def check_network(network: nn.Module, recipe: Recipe) -> None:
    """Raise GlintError for a network that has no head to train alone, or takes no images that grow from start_size."""
    if recipe.strategy != "full":
        linear_head(network)
    start = recipe.optimisation.start_size
    if start is None:
        return
    for size in range(start, recipe.preprocessing.image_size, SIZE_STEP):
        try:
            network.eval()(torch.zeros(1, recipe.preprocessing.num_channels, size, size))
        except (AssertionError, RuntimeError, ValueError) as error:
            raise GlintError(
                f"recipe.optimisation.start_size {start}: {recipe.backbone} takes no images of {size} pixels "
                f"({one_line(error)}); leave start_size out, or choose another backbone"
            ) from None
