"""A batch job whose processes are killed and whose store goes away, again and again: every image has one outcome.

python benchmarks/batch_chaos.py
python benchmarks/batch_chaos.py --images 1500 --kills 2 --driver-kills 1 --outages 1 --every 12 --outage 5

It goes through `glint serve` and a batch endpoint. Every 20 s a scoring actor is killed, and between every other two
the process that one watches; beside that the driver, and the store, here SQLite, is locked against every writer.
"""

import argparse
import ctypes
import json
import os
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from batch_poison import picture, write_model
from common import GLINT, Clock, end

import glint
from glint.core.job import CHUNK_ROWS

NUM_PICTURES = 200
IN_OPEN = 0x20


class Opened:
    """Counts how often files of a folder are opened, which is how often an image is read."""

    def __init__(self, folder: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._events = self._libc.inotify_init()
        if self._events < 0 or self._libc.inotify_add_watch(self._events, bytes(folder), IN_OPEN) < 0:
            sys.exit(f"inotify does not watch {folder}: {os.strerror(ctypes.get_errno())}")
        self.counts: Counter[str] = Counter()
        threading.Thread(target=self._count, daemon=True).start()

    def _count(self) -> None:
        while data := os.read(self._events, 1 << 16):
            while data:
                (length,) = struct.unpack_from("I", data, 12)
                self.counts[data[16 : 16 + length].rstrip(b"\0").decode()] += 1
                data = data[16 + length :]


def write_images(folder: Path, num_images: int) -> None:
    """So many small images, of NUM_PICTURES pictures."""
    folder.mkdir()
    for number in range(min(NUM_PICTURES, num_images)):
        picture(number).save(folder / f"{number:06}.jpg")
    for number in range(NUM_PICTURES, num_images):
        shutil.copyfile(folder / f"{number % NUM_PICTURES:06}.jpg", folder / f"{number:06}.jpg")


def processes(home: Path, wanted: Callable[[str], bool]) -> list[int]:
    """Processes of this glint, by its home, whose command is a wanted one."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            mine = f"GLINT_HOME={home}\0".encode() in (entry / "environ").read_bytes()
        except OSError:
            continue
        if mine and wanted(command):
            found.append(int(entry.name))
    return found


def kill(home: Path, wanted: Callable[[str], bool]) -> bool:
    """Kill the first of them; whether there was one."""
    for pid in processes(home, wanted)[:1]:
        print(f"kill -9 {pid}", file=sys.stderr, flush=True)
        os.kill(pid, signal.SIGKILL)
        return True
    return False


def is_actor(command: str) -> bool:
    """A scoring actor."""
    return command.startswith("ray::ChunkActor")


def is_scoring(command: str) -> bool:
    """The process that an actor watches."""
    return "glint.pipelines.scoring_worker" in command


def is_driver(command: str) -> bool:
    """The driver itself, not the shell that Ray starts it by."""
    return "-m glint.cli.job" in command and "sh -c" not in command


def lock(store: Path, seconds: float) -> None:
    """Keep every writer out of the store for a while."""
    print(f"the store is locked for {seconds:g} s", file=sys.stderr, flush=True)
    connection = sqlite3.connect(store, timeout=30, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    time.sleep(seconds)
    connection.execute("ROLLBACK")
    connection.close()


def torment(asked: argparse.Namespace, home: Path, ended: Callable[[], bool]) -> Counter[str]:
    """Kill and lock by the clock until it has ended, or all is done."""
    done: Counter[str] = Counter()
    # Driver kills and outages lie between the kills of actors, evenly spread.
    drivers = {round((i + 1) * asked.kills / (asked.driver_kills + 1)) for i in range(asked.driver_kills)}
    outages = {round((i + 1) * asked.kills / (asked.outages + 1)) + 1 for i in range(asked.outages)}
    for turn in range(1, asked.kills + 1):
        time.sleep(asked.every / 2)
        if turn in drivers:
            done["driver"] += kill(home, is_driver)
        if turn in outages or (turn == asked.kills and done["outage"] < asked.outages):
            lock(home / "results.db", asked.outage)
            done["outage"] += 1
        if turn % 2 == 0:
            done["scoring process"] += kill(home, is_scoring)
        time.sleep(asked.every / 2)
        while not ended() and not kill(home, is_actor):
            time.sleep(0.5)
        if ended():
            break
        done["actor"] += 1
    return done


def start(home: Path, images: Path) -> tuple[subprocess.Popen[str], str]:
    """`glint serve` without a model, and its address."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GLINT_")}
    environment |= {"GLINT_HOME": str(home), "GLINT_BATCH_INPUTS": str(images), "GLINT_BATCH_MODELS": str(home)}
    command = [str(GLINT), "serve", "--port", "0", "--json"]
    server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    return server, json.loads(server.stdout.readline())["url"]


def options() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--driver-kills", type=int, default=2)
    parser.add_argument("--outages", type=int, default=2)
    parser.add_argument("--every", type=float, default=20, help="seconds between kills")
    parser.add_argument("--outage", type=float, default=20, help="seconds that the store is away")
    parser.add_argument("--backbone", default="resnet18", help="slow enough for the job to last")
    parser.add_argument("--size", type=int, default=224, help="pixels that the model sees")
    return parser.parse_args()


if __name__ == "__main__":
    asked, clock = options(), Clock()
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory).resolve()
        images = home / "images"
        write_images(images, asked.images)
        write_model(home / "bundle", asked.backbone, asked.size)
        server, url = start(home, images)
        try:
            with glint.Client(url) as client:
                client.batch.create("chaos", str(home / "bundle"))
                opened = Opened(images)
                job = client.batch.submit("chaos", str(images), max_attempts=20)
                while not client.batch.progress(job.id).done:
                    time.sleep(1)
                done = torment(asked, home, lambda: client.batch.job(job.id).status not in ("queued", "running"))
                last = client.batch.wait(job.id)
                told = client.batch.job(job.id)
                uris = Counter(outcome.uri for outcome in client.batch.results(job.id))
                if last.status != "completed":
                    print(told.error, client.batch.logs(job.id).text, file=sys.stderr)
        finally:
            server.terminate()
            server.wait(60)
    lost = asked.images - len(uris)
    double = sum(uris.values()) - len(uris)
    reads = sum(opened.counts.values())
    kills = done["actor"] + done["scoring process"] + done["driver"]
    end(
        "batch_chaos",
        lost + double,
        "outcomes lost or double",
        "0",
        {
            "images": asked.images,
            "status": last.status,
            "statuses": last.statuses,
            "counted_by_chunks": last.done,
            "kills": dict(done),
            "attempts_of_the_driver": told.attempt,
            "chunks_read_again_for_each_kill": round((reads - asked.images) / CHUNK_ROWS / max(kills, 1), 2),
            "seconds": clock.seconds(),
        },
    )
