"""Bytes to pixels: the one way in for every image, in training, evaluation, batch and online alike."""

from __future__ import annotations

import io
import re
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile
from torchvision.io import ImageReadMode

from glint.core.errors import ImageError
from glint.vision.headers import Format, JpegHeader, jpeg_header, sniff, webp_header

if TYPE_CHECKING:
    from typing_extensions import Buffer

SCALED_FROM_PIXELS = 4_000_000
"""A JPEG of more pixels may be decoded smaller; below that nothing is gained that would be worth a difference."""
SPARE = 2
"""How many times the side that was asked for a scaled picture keeps at least, for resizing to average over."""

_MAX_SCANS = 100
_MIN_IS_WHITE = 0
_BITS_PER_SAMPLE, _PHOTOMETRIC, _ORIENTATION = 258, 262, 274

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = frozenset(_TURNS[orientation] for orientation in (5, 6, 7, 8))
_BROKEN_EXIF = (KeyError, SyntaxError, TypeError, ValueError, struct.error)

# Opened by class and not by Image.open, whose check for bombs is a setting of the whole process, and late at that.
_PLUGINS: dict[Format, Callable[[IO[bytes]], ImageFile]] = {
    "PNG": PngImageFile,
    "WebP": WebPImageFile,
    "BMP": BmpImageFile,
    "TIFF": TiffImageFile,
    "GIF": GifImageFile,
}
# The decoders' words for what has a name of its own; the rest is corrupt. Pillow identifies no image without an area.
_REASONS = {
    "truncated": re.compile("truncated|incomplete|requires a buffer", re.IGNORECASE),
    "zero_size": re.compile("not identified by this driver"),
    "unsupported": re.compile("unsupported|not supported|unknown pixel mode", re.IGNORECASE),
}
_EIGHT_BIT_MODES = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"})


class DecodeError(ImageError):
    """Bytes that are no picture, or too large a one. `status` is `undecodable` or `too_large`.

    `type` of the undecodable: empty, not_an_image, zero_size, truncated, corrupt, unsupported; of the too large:
    too_many_bytes, too_many_pixels, too_long_side, too_many_scans.
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
        _check_bytes(view.nbytes, limits)
    buffer = bytearray(data)  # a copy, for torch.frombuffer warns of memory that it could not write to
    kind = sniff(buffer)
    if kind is None:
        raise DecodeError(
            "undecodable", "not_an_image", "this is not an image in JPEG, PNG, WebP, BMP, TIFF or GIF format"
        )
    if kind == "JPEG":
        return _jpeg(buffer, side, limits)
    pixels = _webp(buffer, limits) if kind == "WebP" else _by_pillow(kind, buffer, limits)
    return Decoded(pixels, pixels.shape[2], pixels.shape[1])


def _jpeg(data: bytearray, side: int | None, limits: Limits) -> Decoded:
    header = jpeg_header(data)
    if header is None:
        raise DecodeError("undecodable", "truncated", "the JPEG ends before its header does")
    _check_size(header.width, header.height, limits)
    if header.num_scans > _MAX_SCANS:  # ten are usual; thousands would keep a core busy for an hour
        raise DecodeError(
            "too_large", "too_many_scans", f"the JPEG has {header.num_scans} scans; at most {_MAX_SCANS} are decoded"
        )
    scale = _scale(header, side)
    pixels, turned = (_by_torchvision("JPEG", data), None) if scale == 1 else _scaled(data, scale)
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


def _scaled(data: bytearray, scale: int) -> tuple[torch.Tensor, bool]:
    """The picture upright, and whether its sides changed places for that."""
    with _pillow("JPEG"), _drafted(data, scale) as image:
        image.load()
        turn = _turn(image)
        upright = image if turn is None else image.transpose(turn)
        return torch.from_numpy(_rgb("JPEG", upright)).permute(2, 0, 1), turn in _SIDEWAYS


def _turn(image: JpegImageFile) -> Image.Transpose | None:
    """What EXIF asks for; a broken one asks for nothing, as torchvision has it."""
    try:
        return _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except _BROKEN_EXIF:
        return None


def _drafted(data: bytes | bytearray, scale: int) -> JpegImageFile:
    image = JpegImageFile(io.BytesIO(data))
    image.draft(image.mode, (image.width // scale, image.height // scale))
    return image


def _webp(data: bytearray, limits: Limits) -> torch.Tensor:
    header = webp_header(data)
    if header is None or len(data) < 8 + int.from_bytes(data[4:8], "little"):
        raise DecodeError("undecodable", "truncated", "the WebP file is shorter than its header says")
    _check_size(header.width, header.height, limits)
    return _by_torchvision("WebP", data) if header.plain else _by_pillow("WebP", data, limits)


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
        raise _broken(kind, error) from error
    return image


def _by_pillow(kind: Format, data: bytearray, limits: Limits) -> torch.Tensor:
    with _pillow(kind), _PLUGINS[kind](io.BytesIO(data)) as image:
        _check_size(*image.size, limits)
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return torch.from_numpy(_rgb(kind, image)).permute(2, 0, 1)


@contextmanager
def _pillow(kind: Format) -> Iterator[None]:
    """Pillow at work on bytes from anyone: they make its parsers raise anything, from KeyError to MemoryError."""
    _quieten_pillow()
    try:
        yield
    except DecodeError:
        raise
    except Exception as error:
        raise _broken(kind, error) from error


def _rgb(kind: Format, image: Image.Image) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A loaded image as uint8 (H, W, 3)."""
    if image.mode.startswith("I;16"):
        return np.repeat(_eight_bits(image)[..., None], 3, axis=2)
    if image.mode not in _EIGHT_BIT_MODES:
        raise DecodeError(
            "undecodable",
            "unsupported",
            f"the {kind} has pixels of mode {image.mode}; save it as grey or RGB of 8 or 16 bits",
        )
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        canvas = Image.new("RGB", image.size, "white")
        canvas.paste(rgba, mask=rgba)
        return np.array(canvas)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _eight_bits(image: Image.Image) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Grey of 16 bits, or of a TIFF's 12, to uint8 (H, W). Pillow leaves the TIFFs where 0 is white to us."""
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    largest = 2 ** tags.get(_BITS_PER_SAMPLE, (16,))[0] - 1
    values = np.asarray(image).astype(np.uint32)
    if tags.get(_PHOTOMETRIC) == _MIN_IS_WHITE:
        values = largest - values
    scaled: np.ndarray[Any, np.dtype[np.uint8]] = ((values * 255 + largest // 2) // largest).astype(np.uint8)
    return scaled


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
    with _pillow("JPEG"), _drafted(data, scale) as given, _drafted(longer, scale) as extended:
        return given.tobytes() != extended.tobytes()


def _check_bytes(num_bytes: int, limits: Limits) -> None:
    if not num_bytes:
        raise DecodeError("undecodable", "empty", "the file is empty")
    if num_bytes > limits.max_bytes:
        raise DecodeError(
            "too_large", "too_many_bytes", f"the file has {num_bytes:,} bytes; at most {limits.max_bytes:,} are read"
        )


def _check_size(width: int, height: int, limits: Limits) -> None:
    size = f"the image is {width:,} x {height:,} pixels"
    if width < 1 or height < 1:
        raise DecodeError("undecodable", "zero_size", size)
    if width * height > limits.max_pixels:
        raise DecodeError("too_large", "too_many_pixels", f"{size}; at most {limits.max_pixels:,} are decoded")
    if max(width, height) > limits.max_side:
        raise DecodeError("too_large", "too_long_side", f"{size}; a side may have {limits.max_side:,}")


def _broken(kind: Format, error: Exception) -> DecodeError:
    """The decoder's own words in one line, without the place in its source."""
    reason = re.sub(r"^.*\.cpp:\d+, ", "", str(error).partition("\n")[0])
    if isinstance(error, Image.DecompressionBombError):  # such as a GIF's frame beyond its canvas
        return DecodeError("too_large", "too_many_pixels", f"the {kind} cannot be decoded: {reason}")
    if not reason or reason.isdigit():  # the bare key of a KeyError, or nothing at all
        reason = "its header is broken"
    type_ = next((name for name, words in _REASONS.items() if words.search(reason)), "corrupt")
    return DecodeError("undecodable", type_, f"the {kind} cannot be decoded: {reason}")


def _quieten_pillow() -> None:
    """Keep Pillow's warnings about odd files off the console: what matters of them is raised as an error.

    Not by catch_warnings, which is not safe with threads and could leave every warning of the process switched off.
    """
    if ("ignore", None, Warning, re.compile(r"PIL\."), 0) not in warnings.filters:
        warnings.filterwarnings("ignore", module=r"PIL\.")
