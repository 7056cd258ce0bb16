import hashlib
import io

import numpy as np
from PIL import Image

from glint.core.duplicates import NEAR_BITS
from glint.vision.fingerprint import fingerprint


def encoded(seed: int, kind: str, size: tuple[int, int] = (160, 120), **options: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(256, size=(6, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(file, kind, **options)
    return file.getvalue()


def test_the_same_photo_saved_otherwise_has_other_bytes_and_the_same_looks() -> None:
    original = fingerprint(encoded(0, "PNG"))
    assert original.looks is not None
    for other in (encoded(0, "JPEG", quality=60), encoded(0, "PNG", (320, 240)), encoded(0, "WebP")):
        found = fingerprint(other)
        assert found.sha256 == hashlib.sha256(other).hexdigest() != original.sha256
        assert found.looks is not None
        assert (found.looks ^ original.looks).bit_count() <= NEAR_BITS


def test_another_photo_looks_otherwise() -> None:
    first, second = (fingerprint(encoded(seed, "PNG")).looks for seed in (0, 1))
    assert first is not None
    assert second is not None
    assert (first ^ second).bit_count() > 4 * NEAR_BITS


def test_what_is_no_image_has_bytes_but_no_looks() -> None:
    assert fingerprint(b"no image").looks is None
    assert fingerprint(b"no image").sha256 == hashlib.sha256(b"no image").hexdigest()
