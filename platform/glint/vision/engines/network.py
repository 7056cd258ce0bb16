"""A bundle's network as a module that takes pixels as they are decoded: what the exporters convert."""

from __future__ import annotations

import torch
from torch import nn

from glint.vision.backbone import build_model
from glint.vision.bundle import Bundle
from glint.vision.views import with_views


class PixelNetwork(nn.Module):
    """uint8 images (N, C, S, S) -> float32 logits (N, classes), with the normalisation of `transforms.normalise`."""

    offset: torch.Tensor
    scale: torch.Tensor

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        mean, std = bundle.info.preprocessing.normalisation
        self.model = load_network(bundle)
        self.register_buffer("offset", 255 * torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("scale", 255 * torch.tensor(std).view(-1, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalise and run."""
        logits: torch.Tensor = self.model((images.to(torch.float32) - self.offset) / self.scale)
        return logits


def load_network(bundle: Bundle) -> nn.Module:
    """The network with its weights and views, for normalised images, ready to infer."""
    info, settings = bundle.info, bundle.info.preprocessing
    model = build_model(info.backbone, len(info.classes), "none", settings.num_channels, settings.image_size)
    model.load_state_dict(bundle.weights())
    return with_views(model, info.recipe.views).eval()


def exported(bundle: Bundle) -> torch.export.ExportedProgram:
    """The network as torch.export's graph, for any number of images; raises what PyTorch raises where it cannot."""
    with torch.no_grad():
        batch = {0: torch.export.Dim("batch", min=1)}
        return torch.export.export(PixelNetwork(bundle).eval(), (sample_images(bundle, 2),), dynamic_shapes=(batch,))


def sample_images(bundle: Bundle, num_images: int) -> torch.Tensor:
    """uint8 images (N, C, S, S) of noise, the same at every call."""
    settings = bundle.info.preprocessing
    shape = (num_images, settings.num_channels, settings.image_size, settings.image_size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
