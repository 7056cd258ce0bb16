import importlib
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from glint.core.engine_choice import EngineDecisions
from glint.core.errors import GlintError
from glint.vision.bundle import Bundle, write_documents
from glint.vision.engines import conversion
from glint.vision.engines.conversion import NotConvertedError, convert, quantize, save
from glint.vision.engines.network import sample_images
from glint.vision.engines.openvino_engine import OpenVinoEngine
from glint.vision.predictor import Predictor
from glint.vision.selftest import TOLERANCE


@pytest.fixture
def images(bundle: Bundle) -> torch.Tensor:
    return sample_images(bundle, 5)


@pytest.fixture
def converted(bundle: Bundle, tmp_path: Path) -> Bundle:
    """The bundle with its OpenVINO model, as training leaves it."""
    copy = Bundle(Path(shutil.copytree(bundle.directory, tmp_path / "converted")))
    files = save(convert(copy), copy.directory, "model")
    decisions = EngineDecisions(chosen="openvino-fp32", files=files)
    write_documents(copy.directory, copy.info.model_copy(update={"engines": decisions}), copy.policy)
    return Bundle(copy.directory)


def test_openvino_gives_the_probabilities_of_torch(converted: Bundle, images: torch.Tensor) -> None:
    exact, quick = Predictor(converted, engine="torch"), Predictor(converted)
    assert (exact.model.engine, quick.model.engine) == ("torch", "openvino-fp32")
    assert np.abs(exact.score(images) - quick.score(images)).max() < TOLERANCE


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_an_image_scores_the_same_alone_and_among_others(converted: Bundle, images: torch.Tensor, engine: str) -> None:
    predictor = Predictor(converted, engine=engine)
    together, alone = predictor.submit(images), [predictor.submit(image[None]) for image in images]
    assert np.abs(together.result() - np.concatenate([one.result() for one in alone])).max() < 1e-5


def test_a_failure_reaches_whoever_waits(converted: Bundle) -> None:
    predictor = Predictor(converted)
    with pytest.raises(RuntimeError):
        predictor.submit(torch.zeros((1, 3, 8, 9), dtype=torch.uint8)).result()
    assert predictor.submit(torch.zeros((1, 3, 64, 64), dtype=torch.uint8)).result().shape == (1, 4)


def test_8_bits_stay_near(converted: Bundle, images: torch.Tensor) -> None:
    model = convert(converted)
    exact = OpenVinoEngine(model, "openvino-fp32").logits(images)
    rounded = OpenVinoEngine(quantize(model, list(images)), "openvino-int8").logits(images)
    assert 0 < np.abs(exact - rounded).max() < 0.2 * np.abs(exact).max()


def test_8_bits_that_were_not_made_are_not_served(converted: Bundle) -> None:
    with pytest.raises(GlintError, match="no 8-bit model; it was not made when the model was trained"):
        Predictor(converted, engine="openvino-int8")


def test_an_engine_file_that_was_changed_is_not_read(converted: Bundle) -> None:
    path = converted.directory / "engines" / "model.bin"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(GlintError, match=r"model\.bin is missing or is not the file that bundle\.json names"):
        Predictor(converted)


def test_why_a_network_cannot_be_converted_is_told_by_its_operation(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Foreign(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.interpolate(images.float(), size=(8, 8), mode="bicubic", antialias=True)

    graph = torch.export.export(Foreign(), (torch.zeros((1, 3, 64, 64), dtype=torch.uint8),))
    monkeypatch.setattr(conversion, "traced", lambda _: graph)
    logged = logging.getLogger().level, list(logging.getLogger().handlers)
    with pytest.raises(
        NotConvertedError, match=r"No conversion rule found for operations: aten\._upsample_bicubic2d_aa"
    ):
        convert(bundle)
    assert (logging.getLogger().level, logging.getLogger().handlers) == logged, "or later warnings would not be seen"


def test_a_network_that_cannot_be_converted_runs_on_torch_with_one_warning(
    bundle: Bundle, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: Bundle) -> None:
        raise NotConvertedError("an operation that nobody knows")

    monkeypatch.setattr(conversion, "convert", refuse)
    Predictor(bundle, engine="openvino")
    predictor = Predictor(bundle, engine="openvino")
    reason = "OpenVINO cannot convert it: an operation that nobody knows"
    assert caplog.messages == [f"{bundle.info.backbone} runs on torch: {reason}"]
    assert predictor.model.engine == "torch"
    assert len(predictor.score(images)) == 5


def test_openvino_cannot_report_to_its_maker() -> None:
    with pytest.raises(ImportError):
        importlib.import_module("openvino_telemetry")
