"""Images that are the same, or look the same: by their bytes, and by a perceptual hash."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.fft import dctn

Array = np.ndarray[Any, np.dtype[Any]]

HASH_SIDE = 32
"""Side of the grey image that is hashed, pixels."""
LOW = 8
NUM_BITS = LOW * LOW
NEAR_BITS = 4
"""Images whose hashes differ in at most so many bits look the same: after recompression, scaling or a small change of
brightness few bits differ, between unlike pictures about half."""
PAIRS = 2**24
"""Images times others that are compared at once, in 150 MB."""


def perceptual_hash(grey: Array) -> int:
    """The 64-bit pHash of a grey image (32, 32): which of its lowest frequencies are above their median.

    Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010, section 3.2.1. The package
    ImageHash does the same, and brings PyWavelets along for it.
    """
    # Rounded, or the bits of an even surface would be those of rounding errors.
    frequencies = dctn(np.asarray(grey, dtype=np.float64), norm="ortho")[:LOW, :LOW].ravel().round(3)
    bits = frequencies > np.median(frequencies[1:])  # without the first, which is the mean brightness
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def identical(digests: Sequence[str], others: Sequence[str]) -> list[tuple[int, int]]:
    """Of each digest that is among the others: its place, and that of the first of them."""
    first = {digest: place for place, digest in reversed(list(enumerate(others)))}
    return [(place, first[digest]) for place, digest in enumerate(digests) if digest in first]


def near_duplicates(hashes: Array, others: Array, max_bits: int = NEAR_BITS) -> list[tuple[int, int, int]]:
    """Of each hash (N,) with one of `others` (M,) within `max_bits`: its place, that of the nearest, and the distance.

    uint64 both; the closest pairs first. All pairs are compared: a bucketed index saves nothing where every board looks
    like the next, and 20,000 against 80,000 take ten seconds.
    """
    distinct, places = np.unique(others, return_index=True)
    found = []
    block = max(1, PAIRS // max(1, len(distinct)))
    for start in range(0, len(hashes) if len(distinct) else 0, block):
        bits = np.bitwise_count(hashes[start : start + block, None] ^ distinct[None, :])
        nearest = bits.argmin(1)
        for row in np.flatnonzero(bits.min(1) <= max_bits):
            found.append((start + int(row), int(places[nearest[row]]), int(bits[row, nearest[row]])))
    return sorted(found, key=lambda pair: pair[2])
