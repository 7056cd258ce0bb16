"""Mistakes in a recipe that are told before images are read."""

from dataclasses import replace

import pytest
import torch
from tests.pipelines.progress import Told
from timm.optim import create_optimizer_v2
from torch import nn

from glint.core.errors import GlintError
from glint.core.recipe import Preprocessing, Recipe, with_fields
from glint.pipelines.run_checks import check_normalisation, check_optimizer
from glint.pipelines.train import make_plan, train
from glint.pipelines.training_run import TrainingRun


@pytest.mark.parametrize("name", ["adamw", "sgd", "lookahead_adamw", "lamb"])
def test_what_timm_makes_an_optimizer_of_is_taken(name: str) -> None:
    check_optimizer(name)
    assert isinstance(create_optimizer_v2(nn.Linear(2, 2), opt=name, lr=0.1), torch.optim.Optimizer)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("adamww", "did you mean adamw"), ("lookahead_adamm", "did you mean"), ("-", "such as adamw, sgd, lamb or lion$")],
)
def test_an_optimizer_that_timm_lacks_is_named_with_those_near_it(name: str, hint: str, training: TrainingRun) -> None:
    recipe = with_fields(training.recipe, {"optimisation.optimizer": name})
    with pytest.raises(GlintError, match=rf"recipe\.optimisation\.optimizer '{name}' is not one of timm's; {hint}"):
        train(replace(training, recipe=recipe), Told())


def test_an_optimizer_that_makes_no_step_here_is_refused_with_its_reason() -> None:
    with pytest.raises(GlintError, match=r"recipe\.optimisation\.optimizer 'adahessian' does not run here: "):
        check_optimizer("adahessian")  # it needs a second derivative


def test_weights_from_the_hub_have_the_recipe_say_how_images_are_normalised(recipe: Recipe) -> None:
    sizes = Preprocessing(image_size=224)
    vit = recipe.model_copy(update={"backbone": "vit_tiny_patch16_224", "weights": "hub", "preprocessing": sizes})
    said = r"recipe\.preprocessing\.mean: \[0\.5, 0\.5, 0\.5\] and std: \[0\.5, 0\.5, 0\.5\]"
    with pytest.raises(GlintError, match=said):
        check_normalisation(vit)
    with pytest.raises(GlintError, match=said):
        check_normalisation(vit.model_copy(update={"weights": "hub:augreg_in21k"}))
    check_normalisation(vit.model_copy(update={"weights": "none"}))
    check_normalisation(vit.model_copy(update={"backbone": "resnet18"}))
    check_normalisation(with_fields(vit, {"preprocessing.mean": [0.485, 0.456, 0.406]}))


@pytest.mark.parametrize(("backbone", "size"), [("test_vit", 40), ("vit_tiny_patch16_224", 32)])
def test_images_that_a_network_does_not_take_are_told_before_any_is_read(
    backbone: str, size: int, training: TrainingRun
) -> None:
    told = Told()
    recipe = with_fields(training.recipe, {"backbone": backbone, "optimisation.start_size": size})
    with pytest.raises(
        GlintError, match=rf"recipe\.optimisation\.start_size {size}: {backbone} takes no images of {size}"
    ):
        make_plan(replace(training, recipe=recipe), told)
    assert told.stages == []
