"""What an image file says of itself before its pixels are touched: its format, its size, and what it would cost."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from glint.vision.limits import too_many_parts

Format = Literal["JPEG", "PNG", "WebP", "BMP", "TIFF", "GIF"]

_FORMATS: dict[Format, re.Pattern[bytes]] = {
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "WebP": re.compile(rb"RIFF.{4}WEBPVP8[ LX]", re.DOTALL),
    "BMP": re.compile(rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL),
    "TIFF": re.compile(rb"II[*+]\0|MM\0[*+]"),
    "GIF": re.compile(rb"GIF8[79]a"),
}

_JPEG_MARKER = re.compile(rb"\xff([^\x00\xff])")
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD9)})
_JPEG_END, _JPEG_SCAN = 0xD9, 0xDA
_JPEG_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})

_MAX_SEGMENTS = 100_000
"""Before the pixels of a JPEG: a colour profile has 255 at most, and millions would keep a core busy for a minute."""

_WEBP_ANIMATED, _WEBP_EXIF, _WEBP_ALPHA = 0x02, 0x08, 0x10


class JpegHeader(NamedTuple):
    """Size as stored, before any EXIF rotation, and how many scans there are to decode."""

    width: int
    height: int
    num_scans: int

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.width, self.height


class WebpHeader(NamedTuple):
    """Size of the canvas, and whether it holds one opaque, upright picture and nothing else."""

    width: int
    height: int
    plain: bool


def sniff(data: bytes | bytearray) -> Format | None:
    """The format by its first bytes, whatever the file is called; None if it is none of glint's six."""
    return next((name for name, pattern in _FORMATS.items() if pattern.match(data)), None)


def jpeg_header(data: bytearray) -> JpegHeader | None:
    """Walk the segments up to the first scan as libjpeg does (ITU-T T.81, annex B); None if they end before that.

    Raises DecodeError where there are too many.
    Scans are counted only where there can be more than one: it means a search through the whole file.
    """
    size, components, several, at = None, 0, False, 2
    for _ in range(_MAX_SEGMENTS):
        if not (found := _JPEG_MARKER.search(data, at)):
            return None
        marker, at = found[1][0], found.end()
        if marker == _JPEG_END or (marker == _JPEG_SCAN and size is None):
            return None
        if marker == _JPEG_SCAN:
            several = several or data[at + 2 : at + 3] != bytes([components])
            return JpegHeader(*size, data.count(b"\xff\xda", found.start()) if several else 1) if size else None
        if marker in _JPEG_FRAMES and len(data) >= at + 8:
            size = int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 3 : at + 5], "big")
            components, several = data[at + 7], marker in _JPEG_PROGRESSIVE
        if marker not in _JPEG_BARE:
            at += max(2, int.from_bytes(data[at : at + 2], "big"))
    raise too_many_parts("JPEG")


def webp_header(data: bytearray) -> WebpHeader | None:
    """The canvas by the first chunk (RFC 9649); None if it is cut off or broken."""
    kind, body = data[12:16], data[20:30]
    if kind == b"VP8X" and len(body) == 10:
        plain = not body[0] & (_WEBP_ANIMATED | _WEBP_EXIF | _WEBP_ALPHA)
        return WebpHeader(_little(body[4:7]) + 1, _little(body[7:10]) + 1, plain)
    if kind == b"VP8 " and len(body) == 10 and body[3:6] == b"\x9d\x01\x2a":
        return WebpHeader(_little(body[6:8]) & 0x3FFF, _little(body[8:10]) & 0x3FFF, plain=True)
    if kind == b"VP8L" and len(body) >= 5 and body[0] == 0x2F:
        bits = _little(body[1:5])
        return WebpHeader((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, plain=not bits >> 28 & 1)
    return None


def _little(data: bytearray) -> int:
    return int.from_bytes(data, "little")
