"""From what was asked for to an engine that runs."""

from __future__ import annotations

import logging
from functools import cache

import torch

from glint.core.engines import EngineName, check_engine
from glint.core.errors import GlintError
from glint.vision.bundle import Bundle
from glint.vision.engines.engine import Engine

logger = logging.getLogger(__name__)


def choose_engine(bundle: Bundle, asked: str = "auto") -> EngineName:
    """The engine that `asked`, one of `engines.ENGINES`, means for this bundle on this machine.

    Raises GlintError for a name that is none of them.
    """
    check_engine(asked)
    if asked not in ("auto", "openvino"):
        return asked  # type: ignore[return-value]
    if asked == "auto" and torch.cuda.is_available():
        return "torch"
    chosen: EngineName = bundle.info.engines.chosen if bundle.info.engines else "torch"
    if asked == "openvino" and chosen == "torch":
        return "openvino-fp32"
    if chosen == "openvino-bf16":
        from glint.vision.engines.openvino_engine import has_bf16

        return chosen if has_bf16() else "openvino-fp32"
    return chosen


def open_engine(bundle: Bundle, asked: str = "auto") -> Engine:
    """The engine, ready to run. A network that OpenVINO cannot convert runs on torch, and a warning says why.

    Raises GlintError for an engine that there is not, or that this bundle has no model for.
    """
    name = choose_engine(bundle, asked)
    # What an engine needs, OpenVINO or timm, is imported only where it runs.
    if not name.startswith("openvino"):
        return _torch_engine(bundle, compiled=name == "torch-compiled")
    from glint.vision.engines.conversion import STEMS, NotConvertedError, convert, read
    from glint.vision.engines.openvino_engine import OpenVinoEngine

    model = read(bundle, STEMS[name])
    if model is None and name == "openvino-int8":
        raise GlintError(f"--engine {name!r}: {bundle.directory} has no 8-bit model; {_why_none(bundle)}")
    try:
        return OpenVinoEngine(model or convert(bundle), name)
    except NotConvertedError as error:
        _warn_once(f"{bundle.info.backbone} runs on torch: OpenVINO cannot convert it: {error}")
        return _torch_engine(bundle)


@cache
def _warn_once(message: str) -> None:
    logger.warning(message)


def _torch_engine(bundle: Bundle, compiled: bool = False) -> Engine:
    from glint.vision.engines.pytorch import TorchEngine

    return TorchEngine(bundle, compiled)


def _why_none(bundle: Bundle) -> str:
    decisions = bundle.info.engines
    trials = {trial.engine: trial.reason for trial in decisions.trials} if decisions else {}
    unconverted = decisions and decisions.not_converted and f"OpenVINO cannot convert it: {decisions.not_converted}"
    reason = trials.get("openvino-int8") or unconverted or "it was not made when the model was trained"
    return f"{reason}; choose auto, torch or openvino-fp32"
