"""Eight views of an image judged together, by the network alone and by the engines of a bundle."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from glint.core.engine_choice import EngineDecisions
from glint.vision.bundle import Bundle, write_bundle, write_documents
from glint.vision.engines.conversion import convert, save
from glint.vision.engines.network import sample_images
from glint.vision.predictor import Predictor
from glint.vision.selftest import TOLERANCE
from glint.vision.views import DihedralMean, with_views


class Corners(nn.Module):
    """Says what stands in the first row: different for each of the eight views."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images[:, 0, 0]


@pytest.fixture
def round_about(bundle: Bundle, tmp_path: Path) -> Bundle:
    """The bundle with eight views, and its OpenVINO model, as training leaves it."""
    info = bundle.info.model_copy(update={"recipe": bundle.info.recipe.model_copy(update={"views": "dihedral"})})
    made = write_bundle(tmp_path / "bundle", info, bundle.policy, bundle.weights())
    files = save(convert(made), made.directory, "model")
    decisions = EngineDecisions(chosen="openvino-fp32", files=files)
    write_documents(made.directory, info.model_copy(update={"engines": decisions}), made.policy)
    return Bundle(made.directory)


def test_every_flip_and_quarter_turn_has_an_equal_say() -> None:
    images = torch.rand(2, 1, 5, 5)
    turned = [torch.rot90(flipped, k, (2, 3)) for k in range(4) for flipped in (images, images.flip(3))]
    expected = torch.stack([Corners()(view) for view in turned]).mean(0)
    assert torch.allclose(DihedralMean(Corners())(images), expected, atol=1e-6)


def test_one_view_is_the_network_itself() -> None:
    network = Corners()
    assert with_views(network, "one") is network


@pytest.mark.parametrize("engine", ["torch", "openvino-fp32"])
def test_no_engine_minds_how_an_image_lies(round_about: Bundle, engine: str) -> None:
    predictor, images = Predictor(round_about, engine=engine), sample_images(round_about, 3)
    scores = predictor.score(images)
    assert np.abs(scores - predictor.score(torch.rot90(images, 1, (2, 3)).contiguous())).max() < TOLERANCE
    assert np.abs(scores - predictor.score(images.flip(3).contiguous())).max() < TOLERANCE


def test_the_engines_agree_on_them_and_one_view_says_otherwise(round_about: Bundle, bundle: Bundle) -> None:
    images = sample_images(round_about, 3)
    quick, exact = (Predictor(round_about, engine=engine).score(images) for engine in ("openvino-fp32", "torch"))
    assert np.abs(quick - exact).max() < TOLERANCE
    assert np.abs(exact - Predictor(bundle, engine="torch").score(images)).max() > TOLERANCE
