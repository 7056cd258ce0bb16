"""Bytes to pixels: the one way in for every image, in training, evaluation, batch and online alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torchvision.io import ImageReadMode

from glint.vision.headers import Format, JpegHeader, jpeg_header, sniff, webp_header
from glint.vision.limits import DEFAULT_LIMITS, DecodeError, Limits, broken, check_bytes, check_size
from glint.vision.pillow import decode_by_pillow, decode_scaled, drafted, pillow

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["DEFAULT_LIMITS", "DecodeError", "Decoded", "Limits", "decode", "decode_for"]

SCALED_FROM_PIXELS = 4_000_000
"""A JPEG of more pixels may be decoded smaller; below that nothing is gained that would be worth a difference."""
SPARE = 2
"""How many times the side that was asked for a scaled picture keeps at least, for resizing to average over."""

_MAX_SCANS, _MAX_SCANNED_PIXELS = 100, 1_500_000_000
"""Of a JPEG: ten scans are usual, and thousands would keep a core busy for an hour. All pixels of all scans together
take 2.5 s at most, so that the largest picture has fifteen."""


class Decoded(NamedTuple):
    """Pixels, uint8 RGB (3, h, w) in any memory order, with the size of the picture as it is stored upright."""

    pixels: torch.Tensor
    width: int
    height: int


def decode(data: Buffer, limits: Limits = DEFAULT_LIMITS) -> torch.Tensor:
    """Decode JPEG, PNG, WebP, BMP, TIFF or GIF bytes to uint8 RGB (3, H, W), in any memory order.

    Upright by EXIF; the first frame of several; 16 bits divided by 257, never stretched to the image's own range (RGB
    of 16 bits keeps its high bytes, which is the same to within one level); colour profiles are left alone.
    Transparency is laid over white in every format: the pixels beneath it are whatever an editor left there, and the
    model should see what the person who labels the image sees.

    Raises DecodeError and nothing else, whatever the bytes are; the size is known to be within `limits` before any
    pixel is decoded. A file that ends before its pixels do is an error and never a half-grey image. libjpeg and
    libtiff may write a line on stderr about a damaged file.
    """
    return decode_for(data, None, limits).pixels


def decode_for(data: Buffer, side: int | None, limits: Limits = DEFAULT_LIMITS) -> Decoded:
    """The same for a model that takes squares of `side` pixels; None decodes exactly.

    A JPEG of more than SCALED_FROM_PIXELS comes at a half, quarter or eighth of its size, as small as leaves its
    shorter side at least SPARE times `side`. libjpeg then skips most of its work.
    """
    with memoryview(data) as view:
        check_bytes(view.nbytes, limits)
    buffer = bytearray(data)  # a copy, for torch.frombuffer warns of memory that it could not write to
    kind = sniff(buffer)
    if kind is None:
        raise DecodeError(
            "undecodable", "not_an_image", "this is not an image in JPEG, PNG, WebP, BMP, TIFF or GIF format"
        )
    if kind == "JPEG":
        return _jpeg(buffer, side, limits)
    pixels = _webp(buffer, limits) if kind == "WebP" else decode_by_pillow(kind, buffer, limits)
    return Decoded(pixels, pixels.shape[2], pixels.shape[1])


def _jpeg(data: bytearray, side: int | None, limits: Limits) -> Decoded:
    header = jpeg_header(data)
    if header is None:
        raise DecodeError("undecodable", "truncated", "the JPEG ends before its header does")
    check_size(header.width, header.height, limits)
    most = max(1, min(_MAX_SCANS, _MAX_SCANNED_PIXELS // (header.width * header.height)))
    if header.num_scans > most:
        raise DecodeError(
            "too_large", "too_many_scans", f"the JPEG has {header.num_scans} scans; at most {most} are decoded"
        )
    scale = _scale(header, side)
    pixels, turned = (_by_torchvision("JPEG", data), None) if scale == 1 else decode_scaled(data, scale)
    if _stops_short(data, pixels, scale):
        raise DecodeError("undecodable", "truncated", "the JPEG's pixels end before the picture is full")
    if turned is None:
        return Decoded(pixels, pixels.shape[2], pixels.shape[1])
    return Decoded(pixels, *(header.size[::-1] if turned else header.size))


def _scale(header: JpegHeader, side: int | None) -> int:
    """The power of two, up to 8, that a JPEG's width and height are divided by."""
    if side is None or header.width * header.height <= SCALED_FROM_PIXELS:
        return 1
    spare = min(header.width, header.height) // (SPARE * side)
    return next(scale for scale in (8, 4, 2, 1) if scale <= max(1, spare))


def _webp(data: bytearray, limits: Limits) -> torch.Tensor:
    header = webp_header(data)
    if header is None or len(data) < 8 + int.from_bytes(data[4:8], "little"):
        raise DecodeError("undecodable", "truncated", "the WebP file is shorter than its header says")
    check_size(header.width, header.height, limits)
    return _by_torchvision("WebP", data) if header.plain else decode_by_pillow("WebP", data, limits)


def _by_torchvision(kind: Format, data: bytearray) -> torch.Tensor:
    """JPEG and WebP: faster than Pillow, and without the interpreter's lock. JPEG comes upright.

    Never PNG: torchvision 0.29 crashes the process on a corrupt one. The operators are called themselves, for their
    wrappers warn at each call that torchcodec is to replace them.
    """
    encoded, rgb = torch.frombuffer(data, dtype=torch.uint8), ImageReadMode.RGB.value
    operators = torch.ops.image
    try:
        image: torch.Tensor = (
            operators.decode_jpeg(encoded, rgb, True) if kind == "JPEG" else operators.decode_webp(encoded, rgb)
        )
    except RuntimeError as error:
        raise broken(kind, error) from error
    return image


def _stops_short(data: bytearray, image: torch.Tensor, scale: int) -> bool:
    """Whether the coded pixels run out early although the JPEG has its end marker: libjpeg leaves the rest mid-grey.

    Only a picture with a mid-grey corner can be one. It is decoded anew with more bytes put before the end marker:
    they change the picture if, and only if, it was short of them. By Pillow, which prints no warning about them.
    """
    pixels = image.numpy()
    corners = ((pixels[0, y, x], pixels[1, y, x], pixels[2, y, x]) for y in (0, -1) for x in (0, -1))
    if not any(red == green == blue == 128 for red, green, blue in corners):
        return False
    end = data.rfind(b"\xff\xd9")
    longer = data[:end] + b"\x35\xca" * 64 + data[end:]
    with pillow("JPEG"), drafted(data, scale) as given, drafted(longer, scale) as extended:
        return given.tobytes() != extended.tobytes()
