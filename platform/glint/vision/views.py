"""Several views of one image, judged together."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn


class DihedralMean(nn.Module):
    """The mean of a network's logits over the eight flips and quarter turns of square images (N, C, S, S)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N, classes); the network sees one batch of 8 N images."""
        upright = (images, images.transpose(2, 3))
        views = [view for one in upright for view in (one, one.flip(2), one.flip(3), one.flip(2, 3))]
        logits: torch.Tensor = self.network(torch.cat(views)).unflatten(0, (len(views), -1)).mean(0)
        return logits


def with_views(network: nn.Module, views: Literal["one", "dihedral"]) -> nn.Module:
    """What judges images as the recipe's `views` say: training's validation and every engine alike."""
    return DihedralMean(network) if views == "dihedral" else network
