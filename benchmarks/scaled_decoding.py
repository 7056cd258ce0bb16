"""How far is a large JPEG that was decoded smaller from one that was decoded exactly, and what does that save?

python benchmarks/scaled_decoding.py [--images 4]

Boards of 12 and 24 megapixels, as JPEGs of quality 90, become inputs of 224 pixels both ways, on one
core. The difference is that of the model's input, in levels of 255.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import end
from PIL import Image

from glint.pipelines.boards import write_boards
from glint.vision.decode import decode, decode_for
from glint.vision.transforms import resize

SIDE, BOARD_PX = 224, 1024
SIZES = ((4000, 3000), (6000, 4000))


def main() -> None:
    """Measure both ways on the same files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4)
    torch.set_num_threads(1)
    boards = pictures(parser.parse_args().images)
    sides = {
        f"{width} x {height}": compare([jpeg(board, (width, height)) for board in boards]) for width, height in SIZES
    }
    worst = max(side["mean_difference"] for side in sides.values())
    end("scaled_decoding", worst, "levels of 255 of the model's input, on average", "1", sides)


def pictures(number: int) -> list[Image.Image]:
    """So many pictures of boards."""
    with tempfile.TemporaryDirectory() as folder:
        write_boards(Path(folder), number, size=BOARD_PX)
        files = sorted(Path(folder).rglob("*.jpg"))[:number]
        return [Image.open(file).convert("RGB") for file in files]


def jpeg(picture: Image.Image, size: tuple[int, int]) -> bytes:
    """The picture enlarged, with the grain of a sensor, in a file."""
    enlarged = np.asarray(picture.resize(size, Image.Resampling.BICUBIC)).astype(np.int16)
    grain = np.random.default_rng(0).normal(0, 6, enlarged.shape[:2]).astype(np.int16)
    file = io.BytesIO()
    Image.fromarray((enlarged + grain[..., None]).clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def compare(files: list[bytes]) -> dict[str, Any]:
    """Both ways: milliseconds an image, and how far apart they are."""
    exact, exact_ms = timed(lambda data: resize(decode(data), SIDE), files)
    scaled, scaled_ms = timed(lambda data: resize(decode_for(data, SIDE).pixels, SIDE), files)
    apart = np.abs(exact - scaled)
    found = {
        "exact_ms": exact_ms,
        "scaled_ms": scaled_ms,
        "mean_difference": round(float(apart.mean()), 3),
        "p99_difference": float(np.quantile(apart, 0.99)),
        "max_difference": int(apart.max()),
        "mean_bytes": sum(map(len, files)) // len(files),
    }
    print(found, file=sys.stderr)
    return found


def timed(read: Callable[[bytes], torch.Tensor], files: list[bytes]) -> tuple[np.ndarray[Any, Any], float]:
    """All inputs, and milliseconds for one."""
    read(files[0])
    began = time.perf_counter()
    inputs = [read(data) for data in files]
    took_ms = 1000 * (time.perf_counter() - began) / len(files)
    return torch.stack(inputs).numpy().astype(np.int16), round(took_ms, 1)


if __name__ == "__main__":
    main()
