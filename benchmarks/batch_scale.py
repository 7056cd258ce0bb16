"""A batch job of 1,000,000 images by a stub of an engine, against one of 100,000: flat memory and linear time.

python benchmarks/batch_scale.py
python benchmarks/batch_scale.py --images 50000 --against 5000

Nothing is read, decoded or inferred; manifest, chunks, processes, messages and the outcomes in SQLite are real.
"""

import argparse
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
from batch_poison import write_model
from common import Clock, MemoryWatch, end
from stub_engine import StubImages, open_stub

from glint.cli.console import progress
from glint.core.job_options import JobOptions
from glint.core.manifest import SCHEMA, Manifest, write_manifest
from glint.pipelines.batch import run_batch
from glint.pipelines.batch_run import BatchRun
from glint.settings import Settings, quieten
from glint.wiring import open_store, start_ray

BLOCK = 9_900


def rows(num_images: int) -> Iterator[pa.Table]:
    """A listing of so many blobs."""
    for start in range(0, num_images, BLOCK):
        numbers = range(start, min(start + BLOCK, num_images))
        columns: dict[str, Any] = {name: pa.nulls(len(numbers), SCHEMA.field(name).type) for name in SCHEMA.names}
        columns["uri"] = [f"az://line-4/2026/07/board-{number:010}.jpg" for number in numbers]
        columns["etag"] = [f"0x8DC{number:012X}" for number in numbers]
        columns["size"] = [60_000 + number % 50_000 for number in numbers]
        yield pa.table(columns, schema=SCHEMA)


def job(manifest: Manifest, bundle: Path, home: Path) -> BatchRun:
    """A job of the stub on it, with a result store of its own."""
    name = f"scale-{manifest.num_rows}"
    return BatchRun(
        model_uri=str(bundle),
        model=open_stub(bundle).model,
        open_predictor=partial(open_stub, bundle),
        input=str(manifest.path),
        manifest=manifest,
        images=StubImages(),
        store=open_store(Settings(store=f"sqlite:///{home / name}.db")),
        home=home,
        options=JobOptions(),
        job=name,
    )


def measure(num_images: int, bundle: Path, home: Path) -> dict[str, Any]:
    """Seconds and peak memory of a job of so many images, Ray and all its processes included."""
    manifest = write_manifest(home / f"{num_images}.parquet", rows(num_images), source="made up")
    run = job(manifest, bundle, home)
    start_ray(Settings(home=home))
    with MemoryWatch() as memory, progress() as told:
        result = run_batch(run, told)
    ray.shutdown()
    assert result.statuses == {"ok": num_images}, result.statuses
    assert result.bottleneck is not None
    return {
        "images": num_images,
        "seconds": result.seconds,
        "images_per_s": result.bottleneck.images_per_s,
        "bottleneck": result.bottleneck.line,
        "peak_mb": round(memory.peak_bytes / 1e6),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--against", type=int, default=100_000)
    asked, clock = parser.parse_args(), Clock()
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        quieten(Settings(home=home))
        write_model(home / "bundle", size=32)
        few, many = (measure(number, home / "bundle", home) for number in (asked.against, asked.images))
    end(
        "batch_scale",
        round(many["peak_mb"] / few["peak_mb"], 2),
        f"peak memory of {asked.images:,} images by that of {asked.against:,}",
        "at most 1.2, and as many images/s within 20%",
        {
            "few": few,
            "many": many,
            "rate": round(many["images_per_s"] / few["images_per_s"], 2),
            "total_s": clock.seconds(),
        },
    )
