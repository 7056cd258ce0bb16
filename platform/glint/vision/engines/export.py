"""A bundle's network in a file for other runtimes: uint8 images (N, C, S, S) in, float32 logits (N, classes) out.

The normalisation is part of it. What a caller needs besides (classes, resizing, temperature) is in the file too, as
JSON under the key `glint`. No file is left behind that does not say what the bundle says.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
import warnings
from pathlib import Path

import numpy as np
import openvino
import torch
from pydantic import BaseModel

from glint.core.errors import GlintError
from glint.core.whole import check_writable
from glint.vision.bundle import Bundle
from glint.vision.engines.conversion import NotConvertedError, convert, in_one_line, traced
from glint.vision.engines.engine import Logits
from glint.vision.engines.network import PixelNetwork, sample_images
from glint.vision.engines.openvino_engine import core

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "pt2": ".pt2"}
TOLERANCE = 1e-3
"""Largest difference of a logit, as a share of the largest one: float32 runtimes sum in another order."""
NUM_IMAGES = 8
INPUT, OUTPUT, KEY = "images", "logits", "glint"


class Parity(BaseModel):
    """How far the file's logits are from the bundle's at most, and how far they may be."""

    num_images: int
    largest_logit: float
    max_difference: float
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether the file says what the bundle says."""
        return self.max_difference <= self.tolerance


def export(bundle: Bundle, format: str, out: Path) -> Parity:
    """Write the network to `out`, unless the file's logits are not those of the bundle; OpenVINO adds a .bin beside it.

    Raises GlintError for a format, suffix or network that cannot be had.
    """
    check_target(format, out)
    with (
        tempfile.TemporaryDirectory(dir=out.parent, prefix=".glint-export-") as folder,
        warnings.catch_warnings(action="ignore"),  # PyTorch's exporters tell of what they do among themselves
    ):
        draft = Path(folder) / out.name
        try:
            _WRITERS[format](bundle, draft)
        except NotConvertedError as error:
            raise GlintError(f"--format {format}: {bundle.info.backbone} cannot be exported: {error}") from error
        images = sample_images(bundle, NUM_IMAGES)
        found = compare(_READERS[format](draft, images), _expected(bundle, images))
        if found.holds:
            for file in draft.parent.iterdir():
                file.replace(out.parent / file.name)
    return found


def check_target(format: str, out: Path) -> None:
    """Raise GlintError unless the format exists, its package is installed, and `out` can be a file of it."""
    if format not in SUFFIXES:
        raise GlintError(f"--format {format!r} must be one of {', '.join(SUFFIXES)}")
    if format == "onnx" and not all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript")):
        raise GlintError("--format onnx needs packages that are not installed: pip install 'glint[export]'")
    if out.suffix != SUFFIXES[format]:
        raise GlintError(f"--out {out} must end with {SUFFIXES[format]}, for --format {format}")
    if not out.parent.is_dir():
        raise GlintError(f"--out {out}: there is no folder {out.parent}")
    if out.is_dir():
        raise GlintError(f"--out {out} is a folder; name a file in it")
    check_writable(out.parent, f"--out {out}")


def compare(found: Logits, expected: Logits) -> Parity:
    """Logits (N, classes) of both sides."""
    largest = float(np.abs(expected).max())
    return Parity(
        num_images=len(expected),
        largest_logit=largest,
        max_difference=float(np.abs(found - expected).max()),
        tolerance=TOLERANCE * max(1.0, largest),
    )


def _expected(bundle: Bundle, images: torch.Tensor) -> Logits:
    with torch.inference_mode():
        logits: Logits = PixelNetwork(bundle)(images).numpy()
    return logits


def _write_onnx(bundle: Bundle, path: Path) -> None:
    graph = traced(bundle)
    try:  # goes over a foreign network, and raises anything
        program = torch.onnx.export(graph, dynamo=True, verbose=False, input_names=[INPUT], output_names=[OUTPUT])
    except Exception as error:
        raise NotConvertedError(in_one_line(error)) from error
    assert program is not None
    program.model.metadata_props[KEY] = _description(bundle)
    program.save(path)


def _write_openvino(bundle: Bundle, path: Path) -> None:
    model = convert(bundle)
    model.input(0).tensor.set_names({INPUT})
    model.output(0).tensor.set_names({OUTPUT})
    model.set_rt_info(_description(bundle), KEY)
    openvino.save_model(model, path, compress_to_fp16=False)


def _write_pt2(bundle: Bundle, path: Path) -> None:
    torch.export.save(traced(bundle), path, extra_files={f"{KEY}.json": _description(bundle)})


def _read_with_openvino(path: Path, images: torch.Tensor) -> Logits:
    compiled = core().compile_model(core().read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    logits: Logits = compiled([images.numpy()])[0]
    return logits


def _read_pt2(path: Path, images: torch.Tensor) -> Logits:
    with torch.inference_mode():
        logits: Logits = torch.export.load(path).module()(images).numpy()
    return logits


_WRITERS = {"onnx": _write_onnx, "openvino": _write_openvino, "pt2": _write_pt2}
_READERS = {"onnx": _read_with_openvino, "openvino": _read_with_openvino, "pt2": _read_pt2}


def _description(bundle: Bundle) -> str:
    info = bundle.info
    known = {
        "name": info.name,
        "classes": info.classes,
        "task": info.recipe.task,
        "temperature": bundle.policy.temperature,
        "preprocessing": info.preprocessing.model_dump(mode="json"),
        "bundle": bundle.digest,
    }
    return json.dumps(known)
