import json
import pickle
from pathlib import Path

import pytest
import torch

from glint.core.errors import GlintError
from glint.core.policy import Policy
from glint.core.recipe import Preprocessing, Recipe
from glint.vision.backbone import build_model
from glint.vision.bundle import Bundle, BundleInfo, write_bundle
from glint.vision.predictor import Predictor

CLASSES = ("good", "open", "short")


def info(**changes: object) -> BundleInfo:
    recipe = Recipe(name="boards", backbone="test_resnet", weights="none", preprocessing=Preprocessing(image_size=64))
    fields = {
        "name": "boards",
        "backbone": recipe.backbone,
        "classes": CLASSES,
        "preprocessing": recipe.preprocessing,
        "recipe": recipe,
        "manifest": "0" * 64,
        "metrics": {"val_macro_f1": 0.5},
    }
    return BundleInfo(**(fields | changes))


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    torch.manual_seed(0)
    weights = build_model("test_resnet", len(CLASSES), weights="none").state_dict()
    return write_bundle(tmp_path / "bundle", info(), Policy(), weights)


def test_bundle_gives_back_what_was_written(bundle: Bundle) -> None:
    opened = Bundle(bundle.directory)
    assert opened.info == info()
    assert opened.policy == Policy()
    assert opened.digest == bundle.digest
    expected = build_model("test_resnet", len(CLASSES), weights="none").state_dict()
    assert opened.weights().keys() == expected.keys()


def test_digest_follows_weights_and_info_but_not_the_policy(bundle: Bundle, tmp_path: Path) -> None:
    weights = bundle.weights()
    stricter = write_bundle(tmp_path / "stricter", info(), Policy(review_below=0.9), weights)
    renamed = write_bundle(tmp_path / "renamed", info(name="other"), Policy(), weights)
    weights["fc.bias"] = weights["fc.bias"] + 1
    retrained = write_bundle(tmp_path / "retrained", info(), Policy(), weights)
    assert stricter.digest == bundle.digest
    assert stricter.policy.digest != bundle.policy.digest
    assert len({bundle.digest, renamed.digest, retrained.digest}) == 3


def test_folder_that_is_no_bundle_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(GlintError, match=r"is not a glint bundle: it has no bundle\.json"):
        Bundle(tmp_path)


def test_bundle_of_another_format_is_refused(bundle: Bundle) -> None:
    path = bundle.directory / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 2}))
    with pytest.raises(GlintError, match=r"is not a bundle\.json of format 1"):
        Bundle(bundle.directory)


def test_policy_must_name_classes_of_the_model(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(GlintError, match=r"accept_classes names \['fine'\]"):
        write_bundle(tmp_path / "other", info(), Policy(accept_classes=("fine",)), bundle.weights())


def test_predictor_gives_the_same_answers_after_weights_went_through_a_file(bundle: Bundle, tmp_path: Path) -> None:
    image = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
    first = Predictor(bundle).score(image)
    second = Predictor(Bundle(bundle.directory)).score(image)
    assert (first == second).all()
    assert first.sum(1) == pytest.approx([1.0] * 4)


def test_weights_are_tensors_alone(bundle: Bundle) -> None:
    data = (bundle.directory / "weights.safetensors").read_bytes()
    with pytest.raises(pickle.UnpicklingError):
        pickle.loads(data)  # noqa: S301 - that it is no pickle is what is shown


def test_another_policy_may_stand_for_the_bundles_own(bundle: Bundle) -> None:
    stricter = Bundle(bundle.directory, Policy(review_below=0.9))
    assert (stricter.policy.review_below, bundle.policy.review_below) == (0.9, 0.5)
    assert stricter.digest == bundle.digest
