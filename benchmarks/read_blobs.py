"""What it costs a client to read 2,000 blobs of 60 KB: glint's reader against azure-storage-blob, in turns.

.venv/bin/python benchmarks/read_blobs.py

CPU seconds are those of this process, where both clients run with 32 threads; azurite is a process of its own. The
SDK is given what suits it best: one client for all threads, a pool of 64 connections, blobs that fit one request.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from azure.storage.blob import ContainerClient
from common import end

from glint.adapters.blob_account import BlobAccount
from glint.adapters.blob_admin import open_service
from glint.adapters.blob_upload import upload
from glint.adapters.images import Images
from glint.emulators.install import install
from glint.emulators.servers import ACCOUNT_KEY, Azurite

GOAL = 0.25
NUM_BLOBS = 2000
BLOB_BYTES = 60_000
NUM_THREADS = 32
NUM_CONNECTIONS = 64
CONTAINER = "images"


def credentials() -> Mapping[str, str]:
    """The key that azurite has for everybody."""
    return {"account_key": ACCOUNT_KEY}


def write_blobs(folder: Path) -> list[str]:
    """As many files of random bytes, which compress as badly as photographs do."""
    names = [f"{number:05}.jpg" for number in range(NUM_BLOBS)]
    for name in names:
        (folder / name).write_bytes(os.urandom(BLOB_BYTES))
    return names


def read_by_glint(images: Images, names: list[str]) -> int:
    """The bytes of all blobs, read by glint as a job reads them."""
    uris = [f"az://{CONTAINER}/{name}" for name in names]
    return sum(len(data) for data in images.read_many(uris, [None] * len(uris)) if isinstance(data, bytes))


def read_by_sdk(container: ContainerClient, names: list[str]) -> int:
    """The bytes of all blobs, read by the SDK in threads."""
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        return sum(pool.map(lambda name: len(container.download_blob(name).readall()), names))


def measure(read: Callable[[], int]) -> tuple[float, float]:
    """CPU seconds of this process and wall seconds for one reading of all blobs."""
    cpu, wall = cpu_seconds(), time.perf_counter()
    if (num_bytes := read()) != NUM_BLOBS * BLOB_BYTES:
        sys.exit(f"{num_bytes} bytes were read, not {NUM_BLOBS * BLOB_BYTES}")
    return cpu_seconds() - cpu, time.perf_counter() - wall


def cpu_seconds() -> float:
    """User and system time of this process and its ended children; azurite is running still, and not in it."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        stored, files = Path(folder, "azurite"), Path(folder, "files")
        files.mkdir()
        names = write_blobs(files)
        with Azurite(install(Path(sys.prefix) / "emulators"), stored) as azurite:
            account = BlobAccount(azurite.account, azurite.endpoint, credentials)
            upload(account, str(files), f"az://{CONTAINER}")
            sides = compare(account, names, rounds)
    ratios = [glint / sdk for glint, sdk in zip(sides["glint_cpu_s"], sides["sdk_cpu_s"], strict=True)]
    per_1k = NUM_BLOBS / 1000
    shown = {f"{s}_cpu_s_per_1k": round(statistics.median(sides[f"{s}_cpu_s"]) / per_1k, 3) for s in ("glint", "sdk")}
    pace = {f"{s}_images_per_s": round(NUM_BLOBS / statistics.median(sides[f"{s}_wall_s"])) for s in ("glint", "sdk")}
    spread = {"lowest": round(min(ratios), 3), "highest": round(max(ratios), 3), "rounds": rounds}
    end("read_blobs", round(statistics.median(ratios), 3), "of the SDK's CPU", f"at most {GOAL}", shown | pace | spread)


def compare(account: BlobAccount, names: list[str], rounds: int) -> dict[str, list[float]]:
    """Both clients in turns, after one round that is not counted."""
    images = Images(account.name, account.endpoint, credentials, read_threads=NUM_THREADS)
    sides: dict[str, list[float]] = {"glint_cpu_s": [], "glint_wall_s": [], "sdk_cpu_s": [], "sdk_wall_s": []}
    with open_service(account, NUM_CONNECTIONS) as service:
        container = service.get_container_client(CONTAINER)
        clients = {"glint": lambda: read_by_glint(images, names), "sdk": lambda: read_by_sdk(container, names)}
        for number in range(rounds + 1):
            for side, read in clients.items():
                cpu, wall = measure(read)
                print(f"round {number} {side}: {cpu:.2f} CPU s, {wall:.2f} s", file=sys.stderr, flush=True)
                if number:
                    sides[f"{side}_cpu_s"].append(cpu)
                    sides[f"{side}_wall_s"].append(wall)
    return sides


if __name__ == "__main__":
    main()
