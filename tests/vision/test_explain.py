import numpy as np
import pytest
import timm
import torch
from PIL import Image

from glint.core.recipe import Preprocessing
from glint.vision.bundle import Bundle
from glint.vision.explain import Explainer, overlay, saliency

SIZE, HALF = 64, 32


def quadrant(number: int) -> tuple[slice, slice]:
    down, right = divmod(number, 2)
    return slice(down * HALF, (down + 1) * HALF), slice(right * HALF, (right + 1) * HALF)


def noise_with_a_bright_patch(number: int | None) -> torch.Tensor:
    image = torch.randn(3, SIZE, SIZE)
    if number is not None:
        image[:, quadrant(number)[0], quadrant(number)[1]][:, 4:-4, 4:-4] += 2
    return image


def told_apart(backbone: str) -> torch.nn.Module:
    """A random network whose head tells images with a bright patch, in any quadrant, from those without."""
    torch.manual_seed(0)
    size = {"img_size": SIZE} if "vit" in backbone else {}
    model = timm.create_model(backbone, num_classes=2, **size).eval()
    with torch.inference_mode():
        kinds = [
            torch.stack([noise_with_a_bright_patch(i % 4 if there else None) for i in range(32)]) for there in (0, 1)
        ]
        without, there = (model.forward_head(model.forward_features(kind), pre_logits=True).mean(0) for kind in kinds)
    head = model.get_classifier()
    head.weight.data = torch.stack([without - there, there - without])
    return model


@pytest.mark.parametrize(
    "backbone", ["test_resnet", "test_convnext", "test_mambaout", "test_vit", "test_vit2", "test_vit3"]
)
def test_saliency_is_where_the_patch_is_that_the_class_means(backbone: str) -> None:
    model = told_apart(backbone)
    for number in range(4):
        heat = saliency(model, noise_with_a_bright_patch(number), 1)
        assert heat is not None
        assert heat.shape == (SIZE, SIZE)
        assert heat.dtype == np.float32
        assert (float(heat.min()) >= 0, float(heat.max())) == (True, 1.0)
        shares = [float(heat[quadrant(other)].sum() / heat.sum()) for other in range(4)]
        assert int(np.argmax(shares)) == number, shares
        assert backbone == "test_resnet" or shares[number] > 0.5


def test_small_images_are_explained_by_a_stage_that_is_fine_enough() -> None:
    heat = saliency(told_apart("test_resnet"), noise_with_a_bright_patch(3)[:, 32:, 32:], 1)
    assert heat is not None, "the last features of an image of 32 pixels have no place"
    assert len(np.unique(heat)) > 20


class Flat(torch.nn.Module):
    """A network whose features have no place."""

    def __init__(self, features: object) -> None:
        super().__init__()
        self.features = features

    def forward_features(self, batch: torch.Tensor) -> object:
        return self.features

    def forward_head(self, features: torch.Tensor) -> torch.Tensor:
        return features.flatten(1)[:, :2]


@pytest.mark.parametrize(
    "features", [[torch.ones(1, 4, 8)], torch.ones(1, 8), torch.ones(1, 8, 1, 1), torch.ones(1, 7, 8)]
)
def test_features_without_a_place_explain_nothing(features: object) -> None:
    assert saliency(Flat(features), torch.zeros(3, SIZE, SIZE), 1) is None


def test_nothing_is_shown_where_nothing_speaks_for_the_class() -> None:
    model = told_apart("test_resnet")
    model.get_classifier().weight.data.zero_()
    assert saliency(model, noise_with_a_bright_patch(0), 1) is None


def test_a_bundle_explains_the_pixels_that_it_scores(bundle: Bundle) -> None:
    explainer = Explainer(bundle)
    size = bundle.info.preprocessing.image_size
    pixels = torch.randint(0, 256, (3, size, size), dtype=torch.uint8)
    found = [explainer.saliency(pixels, i) for i in range(len(bundle.info.classes))]
    assert any(heat is not None and heat.shape == (size, size) for heat in found)


def test_overlay_is_grey_but_where_the_saliency_is() -> None:
    heat = np.zeros((8, 8), dtype=np.float32)
    heat[:, 6:] = 1
    shown = np.asarray(overlay(Image.new("RGB", (80, 40), (0, 120, 0)), heat, Preprocessing()))
    assert shown.shape == (40, 80, 3)
    assert np.ptp(shown[20, 10]) == 0
    red, green, blue = shown[20, 75].astype(int)
    assert red > green > blue


def test_overlay_of_a_centre_crop_stays_in_the_centre() -> None:
    shown = np.asarray(
        overlay(Image.new("RGB", (80, 40)), np.ones((8, 8), dtype=np.float32), Preprocessing(resize="crop"))
    )
    coloured = np.ptp(shown.astype(int), axis=2) > 0
    assert coloured[:, 20:60].all()
    assert not coloured[:, :20].any()
    assert not coloured[:, 60:].any()
