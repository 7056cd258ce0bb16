"""The training loss, image by image, so that a bad image can weigh nothing."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def image_losses(
    logits: torch.Tensor,
    targets: torch.Tensor,
    *,
    multi_label: bool = False,
    label_smoothing: float = 0.0,
    focal_gamma: float = 0.0,
    class_weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """The loss of each image (N,) from logits (N, C).

    Single-label: cross-entropy on class indices (N,) or shares of classes (N, C), which smoothing spreads over all
    classes; an image weighs what its classes do by `class_weights` (C,). Multi-label: the mean over classes of binary
    cross-entropy on (N, C) in 0..1, smoothed towards 0.5; `class_weights` weigh the presence of a class. What smoothing
    adds has the weight of the image, not of the class that it goes to: else what is rare would be right everywhere.
    `focal_gamma` above 0 weighs down what is right already (Lin et al., Focal Loss, 2017; without its alpha).
    """
    logits = logits.float()
    if multi_label:
        return _binary(logits, targets.float(), label_smoothing, focal_gamma, class_weights)
    if targets.ndim == 1:
        targets = F.one_hot(targets, logits.shape[1]).float()
    losses = F.cross_entropy(logits, targets, label_smoothing=label_smoothing, reduction="none")
    if class_weights is not None:
        losses = losses * (targets @ class_weights)
    if focal_gamma:
        losses = losses * _power((logits.softmax(1) * (1 - targets)).sum(1), focal_gamma)
    return losses


def _binary(
    logits: torch.Tensor, targets: torch.Tensor, smoothing: float, gamma: float, weights: torch.Tensor | None
) -> torch.Tensor:
    smooth = targets * (1 - smoothing) + 0.5 * smoothing
    losses = F.binary_cross_entropy_with_logits(logits, smooth, reduction="none")
    if gamma:
        losses = losses * _power(logits.sigmoid() * (1 - smooth) + (-logits).sigmoid() * smooth, gamma)
    return (losses if weights is None else losses * (1 + (weights - 1) * targets)).mean(1)


def _power(wrong: torch.Tensor, gamma: float) -> torch.Tensor:
    """`wrong` to the power of `gamma`; a power below 1 has an infinite gradient at 0, where nothing is left to learn.

    torchvision's sigmoid_focal_loss takes 1 less a share near 1 instead, which is 0 long before: its gradient is NaN.
    """
    return wrong.clamp_min(torch.finfo(torch.float32).tiny ** 0.5) ** gamma
