"""2% corrupt images of ten kinds among good ones: each has its reason, the rest is unaffected, and the threshold holds.

python benchmarks/batch_poison.py
"""

import io
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Clock, end, glint
from PIL import Image

from glint.core.policy import Policy
from glint.core.recipe import Preprocessing, Recipe
from glint.vision.backbone import build_model
from glint.vision.bundle import BundleInfo, write_bundle

NUM_IMAGES = 2_000
SHARE = 0.02
SIZE = 96
JOB = "poison"


def picture(number: int) -> Image.Image:
    """A picture of its own: noise, of which no two are alike."""
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (SIZE, SIZE, 3), np.uint8))


def encoded(image: Image.Image, kind: str) -> bytes:
    """The image as a file of that kind."""
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


def png(width: int, height: int, pixels: bytes) -> bytes:
    """A PNG of one bit a pixel, with whatever stands for its compressed pixels."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", pixels) + part(b"IEND", b"")


def rows(width: int, height: int) -> bytes:
    """So many black rows, compressed."""
    return zlib.compress(bytes((1 + (width + 7) // 8) * height), 9)


def without_tables(jpeg: bytes) -> bytes:
    """A JPEG whose quantisation tables have become comments."""
    return jpeg.replace(b"\xff\xdb", b"\xff\xfe")


KINDS: dict[str, tuple[str, str, Callable[[Image.Image], bytes]]] = {
    "empty.jpg": ("undecodable", "empty", lambda image: b""),
    "text.jpg": ("undecodable", "not_an_image", lambda image: b"not a picture\n" * 20),
    "half.jpg": ("undecodable", "truncated", lambda image: encoded(image, "JPEG")[:1500]),
    "half.png": ("undecodable", "truncated", lambda image: encoded(image, "PNG")[:5000]),
    "half.webp": ("undecodable", "truncated", lambda image: encoded(image, "WEBP")[:900]),
    "no_tables.jpg": ("undecodable", "corrupt", lambda image: without_tables(encoded(image, "JPEG"))),
    "garbage.png": ("undecodable", "corrupt", lambda image: png(SIZE, SIZE, b"\x00garbage" * 40)),
    "float.tiff": ("undecodable", "unsupported", lambda image: encoded(image.convert("F"), "TIFF")),
    "zero.png": ("undecodable", "zero_size", lambda image: png(0, 0, rows(0, 0))),
    "bomb.png": ("too_large", "too_many_pixels", lambda image: png(30_000, 30_000, rows(30_000, 30_000))),
}


def write_images(folder: Path) -> dict[str, tuple[str, str]]:
    """The images; returns status and reason of each bad one."""
    folder.mkdir()
    names, expected = list(KINDS), {}
    every = round(1 / SHARE)
    for number in range(NUM_IMAGES):
        if number % every == every // 2:
            name = f"{number:05}-{names[number // every % len(names)]}"
            status, reason, spoil = KINDS[name.partition("-")[2]]
            (folder / name).write_bytes(spoil(picture(number)))
            expected[name] = (status, reason)
        else:
            picture(number).save(folder / f"{number:05}.jpg")
    return expected


def write_model(folder: Path, backbone: str = "test_resnet", size: int = SIZE) -> None:
    """A model with random weights: what it says does not matter."""
    torch.manual_seed(0)
    recipe = Recipe(name="chance", backbone=backbone, weights="none", preprocessing=Preprocessing(image_size=size))
    info = BundleInfo(
        name=recipe.name,
        backbone=recipe.backbone,
        classes=("bad", "good"),
        preprocessing=recipe.preprocessing,
        recipe=recipe,
        manifest="0" * 32,
        metrics={},
    )
    write_bundle(folder, info, Policy(), build_model(recipe.backbone, 2, weights="none").state_dict())


def outcomes(job: str, home: Path) -> dict[str, dict[str, Any]]:
    """What became of each file."""
    found = glint("batch", "results", job, home=home)["outcomes"]
    return {outcome["uri"].rpartition("/")[2]: outcome for outcome in found}


def wrong(found: dict[str, dict[str, Any]], expected: dict[str, tuple[str, str]]) -> list[str]:
    """Files whose status or reason is not the expected one."""
    named = {
        name: (one["status"], one["error"]["type"]) if one["error"] else (one["status"], "")
        for name, one in found.items()
    }
    return [f"{name} {got}" for name, got in named.items() if got != expected.get(name, ("ok", ""))]


if __name__ == "__main__":
    clock = Clock()
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        expected = write_images(home / "images")
        write_model(home / "bundle")
        asked = ("batch", "run", "--model", home / "bundle", "--input", home / "images", "--job", JOB)
        strict = glint(*asked, "--error-threshold", "1%", home=home, expect=1)
        completed = glint(*asked, "--error-threshold", "3%", home=home)
        mixed = outcomes(JOB, home)
        for name in expected:
            (home / "images" / name).unlink()
        alone = glint("batch", "run", "--model", home / "bundle", "--input", home / "images", home=home)
        unspoilt = outcomes(alone["job"], home)
    mistakes = wrong(mixed, expected)
    affected = [name for name, one in unspoilt.items() if one["top_k"] != mixed[name]["top_k"]]
    unsaid = int(strict["status"] not in ("failed", "stopped") or "error_threshold 1%" not in (strict["error"] or ""))
    unfinished = int(completed["status"] != "completed") + NUM_IMAGES - len(mixed)
    for line in mistakes:
        print(line, file=sys.stderr)
    end(
        "batch_poison",
        len(mistakes) + len(affected) + unsaid + unfinished,
        "images with a wrong reason, affected or missing, or an end that is not as stated",
        "0",
        {
            "images": NUM_IMAGES,
            "corrupt": len(expected),
            "kinds": {name: reason for name, (_, reason, _) in KINDS.items()},
            "outcomes": len(mixed),
            "threshold_1%": {key: strict[key] for key in ("status", "error", "scored", "unstarted")},
            "threshold_3%": {key: completed[key] for key in ("status", "scored", "statuses")},
            "scores_other_than_without_corrupt_neighbours": len(affected),
            "seconds": clock.seconds(),
        },
    )
