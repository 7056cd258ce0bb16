"""glint trains image classifiers on labelled images in object storage and serves them, on Ray.

import glint
glint.load("models:/boards@champion").predict(["a.jpg", "b.jpg"])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glint.client import AsyncClient, Client
    from glint.vision.predictor import Predictor

__version__ = "0.1.0"
__all__ = ["AsyncClient", "Client", "__version__", "load"]


def load(model: str, engine: str = "auto") -> Predictor:
    """Open a model as a Predictor, in this process, without Ray.

    `model` is a bundle directory, or a registry URI: `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
    `engine`: auto, torch, torch-compiled, openvino, openvino-fp32, openvino-bf16 or openvino-int8.
    Raises GlintError when there is no such model or engine.
    """
    from glint.wiring import open_predictor  # torch and MLflow are imported when a model is first asked for

    return open_predictor(model, engine=engine)


def __getattr__(name: str) -> Any:
    """The clients, imported when they are first asked for."""
    if name in ("AsyncClient", "Client"):
        from glint import client

        return getattr(client, name)
    raise AttributeError(f"module 'glint' has no attribute {name!r}")
