"""What tells two images apart, or does not: a hash of the file's bytes, and one of what it looks like."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from torchvision.transforms.v2 import functional as F

from glint.core.duplicates import HASH_SIDE, perceptual_hash
from glint.core.errors import ImageError
from glint.vision.decode import DEFAULT_LIMITS, Limits, decode
from glint.vision.transforms import resize


@dataclass(frozen=True)
class Fingerprint:
    """SHA-256 of an image file, and its 64-bit perceptual hash, None where it cannot be decoded."""

    sha256: str
    looks: int | None


def fingerprint(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Fingerprint:
    """Both hashes of an encoded image."""
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        grey = resize(F.rgb_to_grayscale(decode(data, limits)), HASH_SIDE)
    except ImageError:
        return Fingerprint(sha256, None)
    return Fingerprint(sha256, perceptual_hash(grey[0].numpy()))
