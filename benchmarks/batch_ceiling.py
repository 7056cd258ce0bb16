"""What an image takes of a core by bare torchvision, OpenVINO, obstore and sqlite3, for batch.py; nothing of glint's.

Each step runs alone and as a job would have it, on all cores at once, since two cores that share caches are slower than
twice one.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import torch
from obstore.store import AzureStore
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms.v2 import functional

SECONDS = 5.0
SIZE, ROWS, READERS = 224, 99, 16
PRECISIONS = {"openvino-fp32": "f32", "openvino-bf16": "bf16", "openvino-int8": "bf16"}


def core_seconds(pictures: Path, bundle: Path, engine: str, prefix: str, results: Path) -> dict[str, float]:
    """Seconds of a core an image: decode and infer, on all cores; read and write, of this process's own CPU time."""
    files = [path.read_bytes() for path in sorted(pictures.iterdir())]
    torch.set_num_threads(1)
    steps: dict[str, Callable[[], float]] = {
        "decode": lambda: decoding(files),
        "infer": lambda: inferring(bundle, engine),
        "read": lambda: reading(prefix),
        "write": lambda: writing(results),
    }
    spent = {}
    for name, step in steps.items():
        spent[name] = step()
        print(f"{name}: {1000 * spent[name]:.3f} ms of a core an image", file=sys.stderr, flush=True)
    return spent


def decoding(files: list[bytes]) -> float:
    """JPEG to RGB, squashed to SIZE x SIZE."""
    tensors = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in files]

    def decode(number: int) -> Any:
        pixels = decode_jpeg(tensors[number % len(tensors)], mode=ImageReadMode.RGB)
        return functional.resize(pixels, [SIZE, SIZE], antialias=True)

    return on_all_cores(decode)


def inferring(bundle: Path, engine: str) -> float:
    """One image at a time by as many streams as there are cores."""
    cores = os.cpu_count() or 1
    core = openvino.Core()
    model = core.read_model(bundle / "engines" / ("int8.xml" if engine == "openvino-int8" else "model.xml"))
    model.reshape([1, 3, SIZE, SIZE])
    properties = {
        "INFERENCE_PRECISION_HINT": PRECISIONS[engine],
        "NUM_STREAMS": cores,
        "INFERENCE_NUM_THREADS": cores,
        "ENABLE_CPU_PINNING": False,
    }
    queue = openvino.AsyncInferQueue(core.compile_model(model, "CPU", properties), cores)
    image = np.random.default_rng(0).integers(0, 256, (1, 3, SIZE, SIZE), np.uint8)
    for _ in range(50):
        queue.start_async([image], share_inputs=True)
    queue.wait_all()
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < SECONDS:
        queue.start_async([image], share_inputs=True)
        done += 1
    queue.wait_all()
    return (time.perf_counter() - began) * cores / done


def reading(prefix: str) -> float:
    """CPU time of a process that reads blobs with obstore in READERS threads."""
    container, _, below = prefix.partition("/")
    store = AzureStore(
        container,
        account_name=os.environ["GLINT_BLOB_ACCOUNT"],
        account_key=os.environ["GLINT_BLOB_KEY"],
        endpoint=os.environ["GLINT_BLOB_ENDPOINT"],
        client_options={"allow_http": True},
    )
    names = [found["path"] for part in store.list(below) for found in part]
    with ThreadPoolExecutor(READERS) as threads:
        began = time.process_time()
        sizes = list(threads.map(lambda name: len(store.get(name).bytes()), names))
    return (time.process_time() - began) / len(sizes)


def writing(results: Path) -> float:
    """CPU time of inserting a job's outcomes into an indexed table, ROWS in a transaction."""
    with closing(sqlite3.connect(f"file:{results}?mode=ro", uri=True)) as source:
        columns = "pk, id, status, label, decision, confidence, document, etag"
        rows = source.execute(f"SELECT {columns} FROM outcomes LIMIT 20000").fetchall()
    with tempfile.TemporaryDirectory() as directory:
        copy = sqlite3.connect(Path(directory, "copy.db"), isolation_level=None)
        copy.execute("PRAGMA journal_mode = WAL")
        copy.execute("PRAGMA synchronous = NORMAL")
        copy.execute(f"CREATE TABLE outcomes ({columns}, PRIMARY KEY (pk, id))")
        copy.execute("CREATE INDEX filter ON outcomes (pk, id, status, label, decision, confidence)")
        began = time.process_time()
        for first in range(0, len(rows), ROWS):
            copy.execute("BEGIN IMMEDIATE")
            copy.executemany("INSERT INTO outcomes VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows[first : first + ROWS])
            copy.execute("COMMIT")
        spent = time.process_time() - began
        copy.close()
    return spent / len(rows)


def on_all_cores(work: Callable[[int], Any]) -> float:
    """Seconds of a core for one call, with a thread on each."""
    cores = os.cpu_count() or 1
    stop = time.perf_counter() + SECONDS

    def loop(_: int) -> int:
        done = 0
        while time.perf_counter() < stop:
            work(done)
            done += 1
        return done

    began = time.perf_counter()
    with ThreadPoolExecutor(cores) as threads:
        total = sum(threads.map(loop, range(cores)))
    return (time.perf_counter() - began) * cores / total
