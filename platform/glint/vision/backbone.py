"""Models: a timm backbone with a new head, and where its weights come from."""

from __future__ import annotations

import difflib
from pathlib import Path

import timm
import torch
from safetensors import SafetensorError
from torch import nn

from glint.core.errors import GlintError


def build_model(backbone: str, num_classes: int, weights: str) -> nn.Module:
    """A classifier for uint8-normalised RGB batches (N, 3, S, S), giving logits (N, num_classes), channels last.

    `weights` is `hub` (timm's own, by way of its cache), `none` (random), or the path of a .safetensors or PyTorch
    weights file for the same backbone, whose head is replaced. Pickled code in a file is never run.
    Raises GlintError for an unknown backbone, a missing file, weights that do not fit, or an unreachable hub.
    """
    check_backbone(backbone)
    if weights == "none":
        return _channels_last(timm.create_model(backbone, num_classes=num_classes))
    overlay = None if weights == "hub" else {"file": str(_weights_file(weights))}
    try:
        model = timm.create_model(backbone, pretrained=True, num_classes=num_classes, pretrained_cfg_overlay=overlay)
    except (RuntimeError, SafetensorError) as error:
        raise GlintError(
            f"recipe.weights {weights!r} do not fit the backbone {backbone}: {_first_line(error)}"
        ) from None
    except OSError as error:
        raise GlintError(
            f"recipe.weights {weights!r} cannot be loaded: {_first_line(error)}; name a local file, or none for random"
        ) from None
    return _channels_last(model)


def check_backbone(name: str) -> None:
    """Raise GlintError, naming the closest ones, unless timm has a backbone of that name."""
    if name in timm.list_models():
        return
    close = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(close)}?" if close else "see timm.list_models()"
    raise GlintError(f"recipe.backbone {name!r} is not one of timm's models; {hint}")


def native_bf16(device: torch.device) -> bool:
    """Whether this device multiplies bfloat16 matrices natively; where it emulates them, autocast costs time."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))


def _weights_file(path: str) -> Path:
    file = Path(path).expanduser()
    if not file.is_file():
        raise GlintError(f"recipe.weights must be hub, none or the path of a weights file; there is no file {path!r}")
    return file


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _channels_last(model: nn.Module) -> nn.Module:
    return model.to(memory_format=torch.channels_last)
