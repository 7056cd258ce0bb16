"""What a process answers with that was asked for a chunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Written:
    """A chunk that stands in the store: its document as JSON, and how long it took to write, seconds.

    `down_s`: while a new scoring process started for one that had died or overrun, since the answer before.
    """

    document: str
    write_s: float
    down_s: float = 0.0


@dataclass(frozen=True)
class Decoded:
    """A chunk on its way to whoever infers: uint8 pixels (N, C, S, S) of the images that have no error, in order.

    `images` has error (status, type and message, or null), width, height and timings_ms of each; `seconds` is how long
    it took. `down_s` is as of Written.
    """

    chunk: int
    images: list[dict[str, Any]]
    seconds: float
    pixels: np.ndarray[Any, np.dtype[np.uint8]]
    down_s: float = 0.0
