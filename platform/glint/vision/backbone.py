"""Models: a timm backbone with a new head, and where its weights come from."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import timm
import timm.models
import torch
from safetensors import SafetensorError
from torch import nn

from glint.core.errors import GlintError, one_line
from glint.vision.transfer import LoadReport, load_weights, report_all
from glint.vision.weights import read_weights


def build_model(
    backbone: str, num_classes: int, weights: str, in_chans: int = 3, image_size: int | None = None
) -> nn.Module:
    """A classifier for normalised batches (N, in_chans, S, S), giving logits (N, num_classes), channels last.

    `weights` and what is raised are those of `build_and_report`.
    """
    return _build(backbone, num_classes, weights, in_chans, image_size)[0]


def build_and_report(
    backbone: str,
    classes: Sequence[str],
    weights: str,
    in_chans: int = 3,
    image_size: int | None = None,
    source: str | None = None,
) -> tuple[nn.Module, LoadReport | None]:
    """`build_model`, with what matched of the weights; None where there are none to match.

    `weights` is `none` (random), `hub` or `hub:TAG` (timm's own, by way of its cache), or the path of a file or bundle
    on this machine, which `source` may call by another name. A bundle's head is kept for the classes that it knows, a
    file's where it has the same size. `image_size` is what a backbone with positions for one size is made for;
    default: timm's.
    Raises GlintError for an unknown backbone or tag, weights that are not there or do not fit, or an unreachable hub.
    """
    return _build(backbone, len(classes), weights, in_chans, image_size, classes, source)


def check_backbone(name: str) -> None:
    """Raise GlintError, naming the closest ones, unless timm has a backbone of that name."""
    if name in timm.list_models():
        return
    close = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(close)}?" if close else "see timm.list_models()"
    raise GlintError(f"recipe.backbone {name!r} is not one of timm's models; {hint}")


def check_hub(backbone: str, weights: str) -> None:
    """Raise GlintError when `weights` are the hub's, and timm knows of none such there; asks no network."""
    if not is_hub(weights):
        return
    known = [f"hub:{name.partition('.')[2]}" for name in timm.list_pretrained(f"{backbone}.*")]
    if weights not in ("hub", *known) or not timm.models.is_model_pretrained(backbone):
        choices = ", ".join(["hub", *known] if known else ["none"])
        raise GlintError(f"recipe.weights {weights!r}: for {backbone} there are {choices}, or a file of your own")


def hub_normalisation(backbone: str, weights: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation, by channel in 0..1, of the images that these weights of the hub were trained on."""
    tag = weights.removeprefix("hub").removeprefix(":")
    known = timm.models.get_pretrained_cfg(f"{backbone}.{tag}" if tag else backbone)
    return tuple(known.mean), tuple(known.std)  # type: ignore[union-attr]


def is_hub(weights: str) -> bool:
    """Whether they are timm's own, from the hub."""
    return weights == "hub" or weights.startswith("hub:")


def native_bf16(device: torch.device) -> bool:
    """Whether this device multiplies bfloat16 natively; where it emulates it, autocast costs time.

    Measured on a processor with avx512_bf16: a training step of resnet10t takes 0.58 of its time in float32.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    units = torch.cpu.get_capabilities()
    return bool(units.get("amx_bf16") or units.get("avx512_bf16"))


def _build(
    backbone: str,
    num_classes: int,
    weights: str,
    in_chans: int,
    image_size: int | None,
    classes: Sequence[str] | None = None,
    source: str | None = None,
) -> tuple[nn.Module, LoadReport | None]:
    check_backbone(backbone)
    size = {"in_chans": in_chans, "img_size": image_size}
    report = None
    if is_hub(weights):
        check_hub(backbone, weights)
        model, report = _from_hub(backbone, num_classes, weights, size)
    else:
        model = _create(backbone, size, num_classes=num_classes)
        if weights != "none":
            report = load_weights(model, read_weights(weights), backbone, classes, source)
    return model.to(memory_format=torch.channels_last), report


def _create(name: str, size: dict[str, Any], pretrained: bool = False, **more: Any) -> nn.Module:
    return timm.create_model(pretrained=pretrained, **timm.models.resolve_model_input_args(name, size, **more))


def _from_hub(backbone: str, num_classes: int, weights: str, size: dict[str, Any]) -> tuple[nn.Module, LoadReport]:
    """With the head that the weights come with first: so timm insists that every one of them fits."""
    tag = weights.removeprefix("hub").removeprefix(":")
    try:
        model = _create(f"{backbone}.{tag}" if tag else backbone, size, pretrained=True)
    except (RuntimeError, SafetensorError) as error:
        raise GlintError(f"recipe.weights {weights!r} do not fit the backbone {backbone}: {one_line(error)}") from None
    except OSError as error:
        raise GlintError(
            f"recipe.weights {weights!r} cannot be loaded: {one_line(error)}; name a local file, or none for random"
        ) from None
    new_head = model.num_classes != num_classes
    if new_head:
        model.reset_classifier(num_classes)  # type: ignore[operator]
    called = f"hub:{model.pretrained_cfg.get('tag') or ''}".rstrip(":")  # type: ignore[operator, union-attr]
    return model, report_all(called, backbone, model, "new" if new_head else "kept")
