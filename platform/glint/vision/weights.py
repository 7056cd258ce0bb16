"""Weights as they lie on this machine: a .safetensors file, a PyTorch file, or a bundle.

No code in a file is ever run: safetensors holds tensors alone, and PyTorch's files are read with weights_only.
"""

from __future__ import annotations

import contextlib
import pickle
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm.models
import torch
from safetensors import SafetensorError

from glint.core.errors import GlintError, one_line
from glint.vision.bundle import Bundle

State = dict[str, torch.Tensor]

FOREIGN = (RuntimeError, ValueError, LookupError, AttributeError, TypeError, AssertionError)
"""What comes of tensors and files that are something else than expected."""
DAMAGED = (*FOREIGN, SafetensorError, pickle.PickleError, struct.error, EOFError, OSError)
NUM_SHOWN = 3


@dataclass(frozen=True)
class Weights:
    """Tensors by name, with the backbone and the classes that they are of where the source says so."""

    source: str
    state: State
    backbone: str | None = None
    classes: tuple[str, ...] | None = None


def read_weights(place: str) -> Weights:
    """Read a bundle directory, or a file with a state dict, bare or nested as timm's checkpoints have it.

    Raises GlintError for what is not there, is damaged, holds no state dict, or holds pickled code.
    """
    path = Path(place).expanduser()
    if path.is_dir():
        bundle = Bundle(path)
        with _damage_told(place):
            return Weights(place, bundle.weights(), bundle.info.backbone, bundle.info.classes)
    if not path.is_file():
        raise GlintError(f"recipe.weights {place!r}: there is no such file and no such bundle directory")
    with _damage_told(place):
        state = _read_file(path)
    tensors = {name: tensor for name, tensor in state.items() if isinstance(tensor, torch.Tensor)}
    if not tensors:
        there = f"there is {listed(list(map(str, state)))}" if state else "it is empty"
        raise GlintError(f"recipe.weights {place!r} has no tensors at its top or below state_dict or model; {there}")
    return Weights(place, tensors)


def listed(names: Sequence[str]) -> str:
    """The first few of them, and how many more there are."""
    more = f" and {len(names) - NUM_SHOWN} more" if len(names) > NUM_SHOWN else ""
    return ", ".join(names[:NUM_SHOWN]) + more


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return timm.models.load_state_dict(str(path), weights_only=True)
    except RuntimeError as error:
        if not isinstance(error.__cause__, pickle.UnpicklingError):
            raise
        if code := _pickled_code(path):
            raise GlintError(
                f"recipe.weights {str(path)!r} holds pickled code ({listed(code)}), which is never run; save the "
                "model's state_dict() alone, best as .safetensors"
            ) from None
        raise ValueError("it holds more than tensors, or something else altogether") from None


def _pickled_code(path: Path) -> list[str]:
    """What a PyTorch file would import and call, found without running it; empty where that cannot be told."""
    with contextlib.suppress(*DAMAGED):
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    return []


@contextlib.contextmanager
def _damage_told(place: str) -> Iterator[None]:
    try:
        yield
    except GlintError:
        raise
    except DAMAGED as error:
        raise GlintError(f"recipe.weights {place!r} cannot be read: {one_line(error)}") from None
