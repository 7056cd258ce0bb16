"""What an image may cost, and how one that cannot be decoded is reported."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

from glint.core.errors import ImageError

if TYPE_CHECKING:
    from glint.vision.headers import Format

# The decoders' words for what has a name of its own; the rest is corrupt. Pillow identifies no image without an area.
_REASONS = {
    "truncated": re.compile("truncated|incomplete|requires a buffer", re.IGNORECASE),
    "zero_size": re.compile("not identified by this driver"),
    "unsupported": re.compile("unsupported|not supported|unknown pixel mode", re.IGNORECASE),
}


class DecodeError(ImageError):
    """Bytes that are no picture, or too large a one. `status` is `undecodable` or `too_large`.

    `type` of the undecodable: empty, not_an_image, zero_size, truncated, corrupt, unsupported; of the too large:
    too_many_bytes, too_many_pixels, too_long_side, too_many_scans, too_many_parts.
    """


@dataclass(frozen=True)
class Limits:
    """What an image may cost. A pixel takes 3 bytes; while it is decoded 3 to 9 in a JPEG, up to 18 by way of Pillow.

    Pillow holds TIFF, GIF and animated WebP to twice its Image.MAX_IMAGE_PIXELS besides: 179 million unless set.
    """

    max_bytes: int = 100 * 2**20
    """size of the file"""
    max_pixels: int = 100_000_000
    """width x height"""
    max_side: int = 65_535
    """of width and height, pixels; JPEG's own bound. A 1 x 100,000,000 strip would cost gigabytes to resize."""


DEFAULT_LIMITS = Limits()


def check_bytes(num_bytes: int, limits: Limits) -> None:
    """Raise DecodeError for an empty file, and for one of too many bytes."""
    if not num_bytes:
        raise DecodeError("undecodable", "empty", "the file is empty")
    if num_bytes > limits.max_bytes:
        raise DecodeError(
            "too_large", "too_many_bytes", f"the file has {num_bytes:,} bytes; at most {limits.max_bytes:,} are read"
        )


def too_many_parts(kind: Format) -> DecodeError:
    """Of a file that is made of so many segments, chunks or strips that to walk them would keep a core busy."""
    return DecodeError("too_large", "too_many_parts", f"the {kind} has more parts than any picture needs")


def check_size(width: int, height: int, limits: Limits) -> None:
    """Raise DecodeError for a picture without an area, and for one of too many pixels or too long a side."""
    size = f"the image is {width:,} x {height:,} pixels"
    if width < 1 or height < 1:
        raise DecodeError("undecodable", "zero_size", size)
    if width * height > limits.max_pixels:
        raise DecodeError("too_large", "too_many_pixels", f"{size}; at most {limits.max_pixels:,} are decoded")
    if max(width, height) > limits.max_side:
        raise DecodeError("too_large", "too_long_side", f"{size}; a side may have {limits.max_side:,}")


def broken(kind: Format, error: Exception) -> DecodeError:
    """A DecodeError with the decoder's own words in one line, without the place in its source."""
    reason = re.sub(r"^.*\.cpp:\d+, ", "", str(error).partition("\n")[0])
    if isinstance(error, Image.DecompressionBombError):  # such as a GIF's frame beyond its canvas
        return DecodeError("too_large", "too_many_pixels", f"the {kind} cannot be decoded: {reason}")
    if not reason or reason.isdigit():  # the bare key of a KeyError, or nothing at all
        reason = "its header is broken"
    type_ = next((name for name, words in _REASONS.items() if words.search(reason)), "corrupt")
    if type_ == "zero_size":
        reason = "its width or height is 0"
    return DecodeError("undecodable", type_, f"the {kind} cannot be decoded: {reason}")
