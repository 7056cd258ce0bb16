"""A small model with random weights: what it says is meaningless, how it is asked is real."""

from pathlib import Path

import pytest
import torch

from glint.core.policy import Policy
from glint.core.recipe import Preprocessing, Recipe
from glint.vision.backbone import build_model
from glint.vision.bundle import BundleInfo, write_bundle

CLASSES = ("good", "mousebite", "open", "short")


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    recipe = Recipe(name="boards", backbone="test_resnet", weights="none", preprocessing=Preprocessing(image_size=64))
    info = BundleInfo(
        name=recipe.name,
        backbone=recipe.backbone,
        classes=CLASSES,
        preprocessing=recipe.preprocessing,
        recipe=recipe,
        manifest="0" * 32,
        metrics={},
    )
    weights = build_model(recipe.backbone, len(CLASSES), weights="none").state_dict()
    return write_bundle(tmp_path_factory.mktemp("model") / "bundle", info, Policy(), weights).directory
