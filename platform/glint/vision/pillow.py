"""Decoding by Pillow: PNG, BMP, TIFF, GIF, animated WebP, and JPEGs at a part of their size."""

from __future__ import annotations

import io
import re
import struct
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import IO, Any, Literal

import numpy as np
import torch
from PIL import Image, ImageOps, TiffTags
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from glint.vision.headers import Format
from glint.vision.limits import DecodeError, Limits, broken, check_size, too_many_parts

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
_MAX_RLE_PIXELS = 10_000_000
"""Of a run-length encoded BMP: 2 s of a core, as Pillow decodes it."""
_SIDEWAYS = frozenset(_TURNS[orientation] for orientation in (5, 6, 7, 8))
_BROKEN_EXIF = (KeyError, SyntaxError, TypeError, ValueError, struct.error)

_MAX_READS = 500_000
"""Of a file, by Pillow's parsers in Python: a second of a core. A PNG of 64 MB in chunks of 8 kB takes 30,000."""
_MAX_PIECES = 100_000
"""Strips or tiles of a TIFF, at least: 100 megapixels in tiles of 32 x 32."""
_OFFSETS, _SIZES = (273, 324), (279, 325)
"""Tags of where they lie and of how many bytes they are, each in 2 to 8 bytes."""
_WHOLE_NUMBERS = (TiffTags.SHORT, TiffTags.LONG, TiffTags.LONG8)
_MAX_AGAIN_BYTES = 64 * 2**20
"""By which all pieces together may be more than the file: equal ones may lie in one place, and each is decoded."""


class _Bytes(io.BytesIO):
    """Bytes that are read so often at most: every loop of Pillow's over a file's parts reads, and C code does not."""

    def __init__(self, kind: Format, data: bytes | bytearray) -> None:
        super().__init__(data)
        self._kind, self._left = kind, _MAX_READS

    def read(self, size: int | None = -1, /) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise too_many_parts(self._kind)
        return super().read(size)


class _Tiff(TiffImageFile):
    """One that does not unpack the places of millions of strips, nor decode the same bytes again for each."""

    def _setup(self) -> None:
        if any(len(self.tag_v2._tagdata.get(tag, b"")) > 8 * _MAX_PIECES for tag in _OFFSETS + _SIZES):
            raise too_many_parts("TIFF")
        super()._setup()
        if any(tile[0] == "libtiff" for tile in self.tile):
            self._check_pieces()

    def _check_pieces(self) -> None:
        """Of a compressed one: a piece without a size, or with one of 0, libtiff may take to be all of the file."""
        assert isinstance(self.fp, _Bytes)
        with self.fp.getbuffer() as data:
            num_bytes, tags = data.nbytes, list(_tags(self.tag_v2, data))
        places, sizes = (self._whole_numbers(tags, named) for named in (_OFFSETS, _SIZES))
        if len(places) < 2:
            return
        if not sizes:
            raise ValueError("it does not say how large its strips are")
        if sum(size or num_bytes for size in sizes) > num_bytes + _MAX_AGAIN_BYTES:
            raise too_many_parts("TIFF")

    def _whole_numbers(self, tags: list[int], named: tuple[int, int]) -> Sequence[int]:
        """Those of the one entry of such a name that there may be."""
        given = [tag for tag in tags if tag in named]
        if not given:
            return ()
        if len(given) > 1 or self.tag_v2.tagtype.get(given[0]) not in _WHOLE_NUMBERS:
            raise ValueError(f"its tag {given[0]} is not as it should be")
        values: tuple[int, ...] = self.tag_v2[given[0]]
        return values


def _tags(directory: ImageFileDirectory_v2, data: memoryview) -> Iterator[int]:
    """Of each entry, of those too whose types Pillow does not know, and libtiff does."""
    order: Literal["little", "big"] = "little" if directory._endian == "<" else "big"
    length, entry = (8, 20) if directory._bigtiff else (2, 12)
    assert directory._offset is not None
    first = directory._offset + length
    number = int.from_bytes(data[directory._offset : first], order)
    for at in range(first, min(first + number * entry, data.nbytes), entry):
        yield int.from_bytes(data[at : at + 2], order)


# Opened by class and not by Image.open, whose check for bombs is a setting of the whole process, and late at that.
_PLUGINS: dict[Format, Callable[[IO[bytes]], ImageFile]] = {
    "PNG": PngImageFile,
    "WebP": WebPImageFile,
    "BMP": BmpImageFile,
    "TIFF": _Tiff,
    "GIF": GifImageFile,
}
_EIGHT_BIT_MODES = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"})


def decode_by_pillow(kind: Format, data: bytearray, limits: Limits) -> torch.Tensor:
    """The first frame, upright, as uint8 RGB (3, H, W); raises DecodeError."""
    with pillow(kind), _PLUGINS[kind](_Bytes(kind, data)) as image:
        check_size(*image.size, _limits_of(image, limits))
        _check_tiles(kind, image)
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return torch.from_numpy(_rgb(kind, image)).permute(2, 0, 1)


def _check_tiles(kind: Format, image: ImageFile) -> None:
    """Raise DecodeError where the pieces of an image cover it again and again, each decoded anew."""
    boxes = (tile.extents for tile in image.tile if tile.extents)
    covered = sum((right - left) * (lower - upper) for left, upper, right, lower in boxes)
    if covered > 2 * len(image.getbands()) * image.width * image.height:
        raise too_many_parts(kind)


def _limits_of(image: ImageFile, limits: Limits) -> Limits:
    """Those given, or narrower for what Pillow decodes in Python, a few bytes of the file to any number of pixels."""
    if any(tile[0] == "bmp_rle" for tile in image.tile):
        return replace(limits, max_pixels=min(limits.max_pixels, _MAX_RLE_PIXELS))
    return limits


def decode_scaled(data: bytearray, scale: int) -> tuple[torch.Tensor, bool]:
    """The picture upright, and whether its sides changed places for that."""
    with pillow("JPEG"), drafted(data, scale) as image:
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


def drafted(data: bytes | bytearray, scale: int) -> JpegImageFile:
    """A JPEG that will be decoded at that part of its width and height."""
    image = JpegImageFile(_Bytes("JPEG", data))
    image.draft(image.mode, (image.width // scale, image.height // scale))
    return image


@contextmanager
def pillow(kind: Format) -> Iterator[None]:
    """Pillow at work on bytes from anyone: they make its parsers raise anything, from KeyError to MemoryError."""
    _quieten_pillow()
    try:
        yield
    except DecodeError:
        raise
    except Exception as error:
        raise broken(kind, error) from error


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


def _quieten_pillow() -> None:
    """Keep Pillow's warnings about odd files off the console: what matters of them is raised as an error.

    Not by catch_warnings, which is not safe with threads and could leave every warning of the process switched off.
    """
    if ("ignore", None, Warning, re.compile(r"PIL\."), 0) not in warnings.filters:
        warnings.filterwarnings("ignore", module=r"PIL\.")
