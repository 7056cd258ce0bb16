"""Where a model looked: Grad-CAM (Selvaraju et al., ICCV 2017) for any timm backbone whose features have a place.

The map is that of the last spatial features or, where these have fewer than FINE places on a side, as those of small
images do, of the last stage that has as many: a defect of a few pixels would be lost in a map of 3 x 3. A transformer
whose head reads one token alone collects what it needs from the others block by block, so there it is the sum over the
second half of the blocks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from glint.core.recipe import Preprocessing
from glint.vision.backbone import build_model
from glint.vision.bundle import Bundle
from glint.vision.transforms import kept_size, load_image, normalise

Saliency = np.ndarray[tuple[int, int], np.dtype[np.float32]]

COLD, HOT = (255.0, 214.0, 0.0), (214.0, 20.0, 0.0)
FINE = 5
"""Places on a side that a map should have; finer ones come from stages that know less of the classes."""
STRENGTH = 0.7
"""How much of the strongest colour covers the picture."""


class Explainer:
    """A bundle's network, ready to say where it looked; on the CPU, an image at a time."""

    def __init__(self, bundle: Bundle) -> None:
        self.preprocessing = settings = bundle.info.preprocessing
        classes = bundle.info.classes
        model = build_model(bundle.info.backbone, len(classes), "none", settings.num_channels, settings.image_size)
        model.load_state_dict(bundle.weights())
        self._model = model.eval().requires_grad_(False)

    def prepare(self, data: bytes) -> torch.Tensor:
        """Decode and resize one encoded image, as the model is fed it; raises ImageError saying why it cannot."""
        return load_image(data, self.preprocessing).pixels

    def saliency(self, pixels: torch.Tensor, class_index: int) -> Saliency | None:
        """What in the uint8 pixels (3, S, S), or (1, S, S) of a gray model, spoke for a class; as `saliency`."""
        return saliency(self._model, normalise(pixels[None], *self.preprocessing.normalisation)[0], class_index)


def saliency(model: nn.Module, image: torch.Tensor, class_index: int) -> Saliency | None:
    """What in a normalised image (C, S, S) speaks for a class: float32 (S, S) in 0..1, 1 where most does.

    The model is one of timm's in evaluation mode. None where it cannot be told: its features have no place in the
    picture, or none of them speaks for the class.
    """
    with torch.enable_grad():
        features, logits = _features_and_logits(model, image[None])
        slopes = torch.autograd.grad(logits[0, class_index], features) if features else ()
    maps = [_map(model, one.detach()[0], slope[0]) for one, slope in zip(features, slopes, strict=True)]
    heat = sum((found for found in maps if found is not None), torch.zeros(1, 1))
    if not heat.max() > 0:
        return None
    size = (image.shape[-2], image.shape[-1])
    smooth = F.interpolate(heat[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]
    shown: Saliency = (smooth / smooth.max()).float().cpu().numpy()
    return shown


def overlay(picture: Image.Image, heat: Saliency, shown: Preprocessing) -> Image.Image:
    """The picture in grey, yellow to red where the saliency is; `shown` is how the model was shown it."""
    gray = np.asarray(picture.convert("L"), dtype=np.float32)[..., None]
    where = _on_picture(heat, picture.size, shown)[..., None]
    colour = (1 - where) * np.array(COLD, dtype=np.float32) + where * np.array(HOT, dtype=np.float32)
    cover = STRENGTH * where**2
    return Image.fromarray((gray * (1 - cover) + colour * cover).astype(np.uint8))


def _on_picture(heat: Saliency, size: tuple[int, int], shown: Preprocessing) -> np.ndarray[Any, Any]:
    """The saliency (H, W) of a picture of `size` (W, H); none outside of what a centre crop kept."""
    width, height = size
    rows, columns = kept_size(height, width, shown.resize, shown.crop_pct)
    drawn = np.asarray(Image.fromarray(heat).resize((columns, rows), Image.Resampling.BILINEAR))
    whole = np.zeros((height, width), dtype=np.float32)
    top, left = (height - rows) // 2, (width - columns) // 2
    whole[top : top + rows, left : left + columns] = drawn
    return np.clip(whole, 0, 1)


def _features_and_logits(model: Any, batch: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The features that Grad-CAM takes the slope by, none where it cannot, and the logits that follow from them."""
    if _reads_one_token(model):
        return _caught(model, batch, list(model.blocks[max(len(model.blocks) // 2 - 1, 0) : -1]))
    features = model.forward_features(batch)
    if not isinstance(features, torch.Tensor) or features.ndim not in (3, 4):
        return [], torch.zeros(1, 0)
    if features.ndim == 4 and _side(model, features) < FINE and (stage := _finer_stage(model, batch)):
        return _caught(model, batch, [stage])
    features = features.detach().requires_grad_()
    return [features], model.forward_head(features)


def _reads_one_token(model: Any) -> bool:
    """Whether the head pools by a token or by attention, instead of averaging over the picture."""
    return getattr(model, "global_pool", None) in ("token", "map") and isinstance(
        getattr(model, "blocks", None), nn.Sequential | nn.ModuleList
    )


def _caught(model: Any, batch: torch.Tensor, modules: Sequence[nn.Module]) -> tuple[list[torch.Tensor], torch.Tensor]:
    """What comes out of these modules, one behind the other, and the logits, which have a slope by all of it."""
    found: list[torch.Tensor] = []

    def catch(_: nn.Module, __: object, output: torch.Tensor) -> torch.Tensor:
        found.append(output if found else output.detach().requires_grad_())
        return found[-1]

    with ExitStack() as hooks:
        for module in modules:
            hooks.callback(module.register_forward_hook(catch).remove)
        return found, model(batch)


def _finer_stage(model: Any, batch: torch.Tensor) -> nn.Module | None:
    """The last of the stages that timm names whose map has FINE places on a side, or more."""
    named, sides = dict(model.named_modules()), dict[str, int]()
    stages = [stage["module"] for stage in getattr(model, "feature_info", []) if stage.get("module") in named]
    if not stages:
        return None
    with ExitStack() as hooks, torch.no_grad():
        for name in stages:

            def measure(_: nn.Module, __: object, output: object, name: str = name) -> None:
                mapped = isinstance(output, torch.Tensor) and output.ndim == 4
                sides[name] = _side(model, output) if mapped else 0  # type: ignore[arg-type]

            hooks.callback(named[name].register_forward_hook(measure).remove)
        model(batch)
    return next((named[name] for name in reversed(stages) if sides.get(name, 0) >= FINE), None)


def _side(model: Any, features: torch.Tensor) -> int:
    """The shorter side of a map in a batch."""
    return min(features.shape[1:3] if _channels_last(model) else features.shape[2:])


def _channels_last(model: Any) -> bool:
    return getattr(model, "output_fmt", "NCHW") == "NHWC"


def _map(model: Any, features: torch.Tensor, slopes: torch.Tensor) -> torch.Tensor | None:
    """What speaks for the class at each place (H, W), 0 or more; None where features have no place."""
    tokens = features.ndim == 2
    grid, slope = _channels_first(model, features), _channels_first(model, slopes)
    if grid is None or slope is None:
        return None
    if tokens:  # All share a large part, which has no place; what comes out of a ReLU has none.
        grid = grid - grid.mean(dim=(1, 2), keepdim=True)
    return (grid * slope.mean(dim=(1, 2), keepdim=True)).sum(0).relu()


def _channels_first(model: Any, features: torch.Tensor) -> torch.Tensor | None:
    """Features of one image, (C, H, W), (H, W, C) or tokens (N, C), as (C, H, W); None where they have no place."""
    if features.ndim == 3:
        first = features.permute(2, 0, 1) if _channels_last(model) else features
        return first if min(first.shape[1:]) > 1 else None
    grid = _grid(model, len(features))
    return features[len(features) - grid[0] * grid[1] :].T.unflatten(1, grid) if grid else None


def _grid(model: Any, num_tokens: int) -> tuple[int, int] | None:
    """Rows and columns of the tokens that have a place, behind the `num_prefix_tokens` that have none."""
    prefixes = {0, int(getattr(model, "num_prefix_tokens", 0) or 0)}
    known = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    for prefix in sorted(prefixes, reverse=True):
        placed = num_tokens - prefix
        side = math.isqrt(max(placed, 0))
        if known is not None and known[0] * known[1] == placed:
            return int(known[0]), int(known[1])
        if side > 1 and side * side == placed:
            return side, side
    return None
