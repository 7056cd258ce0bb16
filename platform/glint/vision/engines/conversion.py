"""A bundle's network as OpenVINO models: converted in float32, and in 8 bits as nncf calibrates it.

engines/model.xml, engines/model.bin     float32, which bfloat16 needs too
engines/int8.xml, engines/int8.bin       8 bits
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import logging
from collections.abc import Sequence
from pathlib import Path

import openvino
import torch
from openvino.tools.ovc.logger import get_logger_state, restore_logger_state

from glint.core.errors import GlintError
from glint.vision.bundle import Bundle
from glint.vision.engines.openvino_engine import core

FOLDER = "engines"
STEMS = {"openvino-fp32": "model", "openvino-bf16": "model", "openvino-int8": "int8"}
MAX_CALIBRATION_IMAGES = 300
"""nncf's own default; it learns the range of each layer's values from them."""


class NotConvertedError(Exception):
    """The network cannot be converted; says why in one line."""


def traced(bundle: Bundle) -> torch.export.ExportedProgram:
    """The network as PyTorch's own graph; raises NotConvertedError."""
    from glint.vision.engines.network import exported  # with timm, which a converted network does without

    try:  # a compiler goes over a foreign network, and raises anything
        return exported(bundle)
    except Exception as error:
        raise NotConvertedError(in_one_line(error)) from error


def convert(bundle: Bundle) -> openvino.Model:
    """The network for uint8 images (?, C, S, S), in float32; raises NotConvertedError."""
    settings, graph, logging_before = bundle.info.preprocessing, traced(bundle), get_logger_state()
    try:  # so does this one
        model = openvino.convert_model(graph)
    except Exception as error:
        restore_logger_state(logging_before)  # or nobody's warnings would be logged any more
        raise NotConvertedError(in_one_line(error)) from error
    model.reshape([-1, settings.num_channels, settings.image_size, settings.image_size])
    return model


def has_nncf() -> bool:
    """Whether the extra `int8` is installed."""
    return importlib.util.find_spec("nncf") is not None


def quantize(model: openvino.Model, images: Sequence[torch.Tensor]) -> openvino.Model:
    """The model in 8 bits, calibrated on uint8 images (C, S, S); raises NotConvertedError where nncf cannot."""
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bars
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it warns of a missing CUDA
        import nncf

        nncf.set_log_level(logging.ERROR)
        samples = nncf.Dataset([image[None].numpy() for image in images[:MAX_CALIBRATION_IMAGES]])
        try:
            found: openvino.Model = nncf.quantize(model, samples, subset_size=len(images[:MAX_CALIBRATION_IMAGES]))
        except Exception as error:
            raise NotConvertedError(in_one_line(error)) from error
    return found


def save(model: openvino.Model, directory: Path, stem: str) -> dict[str, str]:
    """Write a model's two files into the bundle in `directory`; their SHA-256 by name."""
    (directory / FOLDER).mkdir(exist_ok=True)
    names = [f"{FOLDER}/{stem}.xml", f"{FOLDER}/{stem}.bin"]
    openvino.save_model(model, directory / names[0], compress_to_fp16=False)
    return {name: _sha256(directory / name) for name in names}


def read(bundle: Bundle, stem: str) -> openvino.Model | None:
    """The bundle's own model, None where it has none; GlintError where a file is not the one that was written.

    Reading parses a graph of OpenVINO's own operations: no code comes with it.
    """
    decisions = bundle.info.engines
    names = [f"{FOLDER}/{stem}.xml", f"{FOLDER}/{stem}.bin"]
    if decisions is None or names[0] not in decisions.files:
        return None
    for name in names:
        path = bundle.directory / name
        if not path.exists() or _sha256(path) != decisions.files[name]:
            raise GlintError(f"{path} is missing or is not the file that bundle.json names: fetch the bundle anew")
    return core().read_model(bundle.directory / names[0])


def in_one_line(error: Exception) -> str:
    """What went wrong: of a compiler's many lines the one that names operations, or the first."""
    lines = [line.strip(" -") for line in str(error).splitlines() if line.strip()] or [""]
    said = next((line for line in lines if line.startswith("No conversion rule")), lines[0])
    return f"{type(error).__name__}: {said[:300]}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
