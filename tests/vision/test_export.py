import json
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
import torch
from typer.testing import CliRunner

from glint.cli.app import app
from glint.core.errors import GlintError
from glint.vision.bundle import Bundle
from glint.vision.engines import export as exporting
from glint.vision.engines.export import export
from glint.vision.engines.network import sample_images
from glint.vision.predictor import Predictor


@pytest.mark.parametrize(("format", "name"), [("onnx", "m.onnx"), ("openvino", "m.xml"), ("pt2", "m.pt2")])
def test_every_format_says_what_the_bundle_says(bundle: Bundle, tmp_path: Path, format: str, name: str) -> None:
    parity = export(bundle, format, tmp_path / name)
    assert parity.holds
    assert parity.max_difference < 1e-4
    assert {file.name for file in tmp_path.iterdir()} == {name, *(["m.bin"] if format == "openvino" else [])}


def test_an_onnx_file_is_all_that_another_runtime_needs(bundle: Bundle, tmp_path: Path) -> None:
    export(bundle, "onnx", tmp_path / "m.onnx")
    written = onnx.load(tmp_path / "m.onnx")
    known = json.loads(next(entry.value for entry in written.metadata_props if entry.key == "glint"))
    assert known["classes"] == list(bundle.info.classes)
    assert known["preprocessing"]["image_size"] == 64
    images = sample_images(bundle, 3)
    logits = openvino.Core().compile_model(tmp_path / "m.onnx", "CPU")({"images": images.numpy()})["logits"]
    shares = torch.from_numpy(logits / known["temperature"]).softmax(1).numpy()
    assert np.abs(shares - Predictor(bundle, engine="torch").score(images)).max() < 1e-2  # may run in bfloat16


def test_a_file_that_says_something_else_is_not_written(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "TOLERANCE", -1)
    command = ["export", "--model", str(bundle.directory), "--format", "pt2", "--out", str(tmp_path / "m.pt2")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1
    assert "m.pt2 is not written: logits differ by 0 at most" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("format", "out", "complaint"),
    [
        ("tflite", "m.tflite", "--format 'tflite' must be one of onnx, openvino, pt2"),
        ("openvino", "m.onnx", "must end with .xml, for --format openvino"),
        ("onnx", "absent/m.onnx", "there is no folder"),
        ("pt2", "folder.pt2", "folder.pt2 is a folder; name a file in it"),
        ("pt2", "/proc/m.pt2", r"/proc cannot be written to \(.+\); name one of your own"),
    ],
)
def test_a_target_that_cannot_be_is_named(
    bundle: Bundle, tmp_path: Path, format: str, out: str, complaint: str
) -> None:
    (tmp_path / "folder.pt2").mkdir()
    with pytest.raises(GlintError, match=complaint):
        export(bundle, format, tmp_path / out)
