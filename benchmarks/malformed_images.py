"""Malformed images, made by a seed: what a decoder that is open to the network has to live with."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

SHARES = {"truncated": 0.3, "flipped": 0.35, "header": 0.2, "bomb": 0.1, "no image": 0.05}
SIZE = (320, 240)
MAGICS = (b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"MM\0*", b"RIFF\x24\0\0\0WEBPVP8 ")


@dataclass(frozen=True)
class Malformed:
    """One file and what was done to it."""

    kind: str
    data: bytes


def make(number: int, seed: int) -> list[Malformed]:
    """So many files, of each kind its share, shuffled."""
    chance = random.Random(seed)
    wholes = whole_files()
    makers: dict[str, Callable[[], bytes]] = {
        "truncated": lambda: truncated(chance.choice(wholes), chance),
        "flipped": lambda: flipped(chance.choice(wholes), chance),
        "header": lambda: with_other_header(chance.choice(wholes), chance),
        "bomb": lambda: bomb(chance),
        "no image": lambda: no_image(chance),
    }
    counts = {kind: int(share * number) for kind, share in SHARES.items()}
    counts["flipped"] += number - sum(counts.values())
    found = [Malformed(kind, makers[kind]()) for kind, count in counts.items() for _ in range(count)]
    chance.shuffle(found)
    return found


def good() -> bytes:
    """A file that nothing was done to."""
    return whole_files()[0]


def whole_files() -> list[bytes]:
    """One picture in six formats and several of their kinds."""
    noise = np.random.default_rng(0).integers(0, 256, (SIZE[1] // 8, SIZE[0] // 8, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).resize(SIZE, Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[274] = 6
    deep = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    return [
        written(picture, "JPEG", quality=90, exif=exif),
        written(picture, "JPEG", quality=90, progressive=True),
        written(picture.convert("CMYK"), "JPEG"),
        written(picture, "PNG"),
        written(deep, "PNG"),
        written(picture.quantize(64), "PNG"),
        written(picture, "WEBP"),
        written(picture.convert("RGBA"), "WEBP", lossless=True),
        written(picture, "BMP"),
        written(picture, "TIFF", compression="tiff_lzw"),
        written(picture, "TIFF", compression="jpeg"),
        written(picture, "GIF", save_all=True, append_images=[picture.rotate(90), picture.rotate(180)]),
        written(picture, "WEBP", save_all=True, append_images=[picture.rotate(90)]),
    ]


def written(picture: Image.Image, format: str, **options: object) -> bytes:
    """The picture as a file."""
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


def truncated(data: bytes, chance: random.Random) -> bytes:
    """Cut off anywhere; half of them with an end marker of JPEG put behind the cut."""
    return data[: chance.randrange(1, len(data))] + chance.choice((b"", b"\xff\xd9"))


def flipped(data: bytes, chance: random.Random) -> bytes:
    """With 1 to 64 bits flipped, half of the time all of them in the first kilobyte."""
    changed, reach = bytearray(data), chance.choice((len(data), min(len(data), 1024)))
    for _ in range(chance.randint(1, 64)):
        changed[chance.randrange(reach)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def with_other_header(data: bytes, chance: random.Random) -> bytes:
    """That begins as another format does, or with large or zero numbers where a header holds sizes and offsets."""
    if chance.random() < 0.5:
        magic = chance.choice(MAGICS)
        return magic + data[len(magic) :]
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(2, min(len(data) - 4, 200))
        changed[at : at + 4] = chance.choice((b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\xff\xff"))
    return bytes(changed)


def bomb(chance: random.Random) -> bytes:
    """Small in bytes and large in pixels, chunks, frames or scans."""
    side = chance.choice((20_000, 30_000, 65_500))
    makers: tuple[Callable[[], bytes], ...] = (
        lambda: png(side, side, bytes(min(side * 16, 2**20))),
        lambda: png(1, 2**31 - 1, bytes(1000)),
        lambda: resized_bmp(side),
        lambda: resized_gif(side),
        lambda: resized_jpeg(side),
        lambda: scans(chance.choice((500, 5000))),
        lambda: png_text(50_000_000),
        lambda: png(chance.randint(9_000, 9_900), 9_900, bytes(1000)),  # within the limit, and without its pixels
    )
    return chance.choice(makers)()


def png(width: int, height: int, rows: bytes) -> bytes:
    """A grey PNG that claims that size, with those bytes of pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return MAGICS[1] + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def png_text(length: int) -> bytes:
    """A PNG of one pixel with compressed text of that many bytes."""
    text = chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(length), 9))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    return MAGICS[1] + header + text + chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")


def chunk(kind: bytes, body: bytes) -> bytes:
    """Of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def resized_bmp(side: int) -> bytes:
    """A BMP whose header claims that many pixels on each side."""
    data = written(Image.new("RGB", (8, 8)), "BMP")
    return data[:18] + struct.pack("<ii", side, side) + data[26:]


def resized_gif(side: int) -> bytes:
    """A GIF whose canvas claims that."""
    data = written(Image.new("RGB", (8, 8)), "GIF")
    return data[:6] + struct.pack("<HH", side, side) + data[10:]


def resized_jpeg(side: int) -> bytes:
    """A JPEG whose frame claims that."""
    data = written(Image.new("RGB", (8, 8)), "JPEG")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", side, side) + data[at + 4 :]


def scans(number: int) -> bytes:
    """A progressive JPEG whose last scan comes so often."""
    data = written(Image.new("RGB", (2000, 2000), "gray"), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * number + b"\xff\xd9"


def no_image(chance: random.Random) -> bytes:
    """Nothing, noise, text, an archive, a drawing."""
    return chance.choice(
        (
            b"\0",
            bytes(4096),
            chance.randbytes(20_000),
            b"PK\x03\x04" + chance.randbytes(500),
            b"<svg xmlns='http://www.w3.org/2000/svg'><rect width='9' height='9'/></svg>",
            b"%PDF-1.7\n" + chance.randbytes(500),
        )
    )
