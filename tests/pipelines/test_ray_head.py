"""A batch job on a Ray whose head dies amid it: the same command goes on once there is a Ray again."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from glint.adapters.sqlite_store import SqliteStore
from glint.core.stores import Bridge, outcome_pages
from glint.pipelines.training_run import Trained

pytestmark = pytest.mark.slow
NUM_IMAGES = 1500
ALIVE_S, ENDED_S = 60, 150


class Head:
    """`ray start --head` on the loopback interface, in a folder of its own."""

    def __init__(self, folder: Path, port: int) -> None:
        ray = Path(sys.executable).with_name("ray")
        self.address = f"127.0.0.1:{port}"
        options = ["--head", "--block", "--node-ip-address=127.0.0.1", f"--port={port}", f"--temp-dir={folder}"]
        options += ["--num-cpus=8", "--object-store-memory=200000000", "--include-dashboard=false"]
        self._process = subprocess.Popen(
            [ray, "start", *options, "--disable-usage-stats"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        healthy = [ray, "health-check", f"--address={self.address}"]
        wait_for(lambda: subprocess.run(healthy, capture_output=True, check=False).returncode == 0, ALIVE_S)

    def kill(self) -> None:
        """The node dies, with everything on it."""
        processes = [*psutil.Process(self._process.pid).children(recursive=True), psutil.Process(self._process.pid)]
        for process in reversed(processes):
            if process.is_running():
                process.kill()
        self._process.wait(ALIVE_S)
        psutil.wait_procs(processes, ALIVE_S)


def wait_for(holds: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short enough for the names of Ray's sockets, which have 107 characters."""
    made = Path(tempfile.mkdtemp(prefix="ray-head-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


def test_a_job_goes_on_when_the_head_of_its_ray_was_started_again(
    trained: Trained, boards: Path, tmp_path: Path, folder: Path
) -> None:
    pictures, source = tmp_path / "pictures", sorted((boards / "good").iterdir())[1]  # the first is damaged
    pictures.mkdir()
    for number in range(NUM_IMAGES):
        shutil.copy(source, pictures / f"{number:04}.jpg")
    store, bridge = SqliteStore(tmp_path / "home" / "results.db"), Bridge()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    head = Head(folder / "1", port)
    glint = Path(sys.executable).with_name("glint")
    command = [glint, "batch", "run", "--model", trained.bundle, "--input", str(pictures), "--job", "restarted"]
    command += ["--mini-batch-size", "5", "--json"]
    environment = os.environ | {"GLINT_HOME": str(tmp_path / "home"), "GLINT_RAY_ADDRESS": head.address}

    def num_written() -> int:
        return sum(chunk.num_images for chunk in bridge.iterate(store.chunks("restarted")))

    try:
        with (tmp_path / "said.txt").open("w") as said:
            driver = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
        wait_for(lambda: num_written() >= 100, 2 * ALIVE_S)
        head.kill()
        assert driver.wait(ENDED_S) not in (0, None)
        before = num_written()
        assert 100 <= before < NUM_IMAGES
        head = Head(folder / "2", port)
        again = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=ENDED_S)
        assert again.returncode == 0, again.stderr
        found = json.loads(again.stdout)
        assert (found["status"], found["statuses"]) == ("completed", {"ok": NUM_IMAGES})
        assert found["scored"] == NUM_IMAGES - before
        uris = [row.uri for page in bridge.iterate(outcome_pages(store, "restarted")) for row in page]
        assert len(uris) == len(set(uris)) == NUM_IMAGES
    finally:
        head.kill()
        bridge.run(store.close())
        bridge.close()
