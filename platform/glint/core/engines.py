"""The engines that there are, by name."""

from __future__ import annotations

from typing import Literal, get_args

from glint.core.errors import GlintError

EngineName = Literal["torch", "torch-compiled", "openvino-fp32", "openvino-bf16", "openvino-int8"]
ENGINES = ("auto", "openvino", *get_args(EngineName))
"""What may be asked for: `auto` and `openvino` stand for what was decided in training, the latter beside a GPU too."""


def check_engine(asked: object, setting: str = "--engine") -> None:
    """Raise GlintError, which names the setting, unless there is an engine of that name."""
    if asked not in ENGINES:
        raise GlintError(f"{setting} {asked!r} must be one of {', '.join(ENGINES)}")
