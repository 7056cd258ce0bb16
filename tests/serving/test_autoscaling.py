"""`glint serve --replicas MIN:MAX` under load, as people start it."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from glint.serving.online import APPLICATION
from glint.vision.bundle import Bundle

NUM_CALLERS, MANY_SECONDS = 24, 180
REPLICA = f"ray::ServeReplica:{APPLICATION}:"


def num_replicas(server: int) -> int:
    return sum(title(process).startswith(REPLICA) for process in psutil.Process(server).children(recursive=True))


def title(process: psutil.Process) -> str:
    """What Ray calls it; nothing once it has ended."""
    with suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline())
    return ""


@pytest.mark.slow
def test_a_second_replica_comes_under_load_and_no_request_fails(sighted: Bundle, tmp_path: Path) -> None:
    command = [Path(sys.executable).with_name("glint"), "serve", "--model", sighted.directory, "--port", "0", "--json"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    environment = os.environ | {"GLINT_HOME": str(tmp_path), "GLINT_SERVE_MAX_WAIT_S": "60"}
    with subprocess.Popen([*command, "--replicas", "1:2"], env=environment, text=True, **pipes) as process:
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"]
            image = (sighted.directory / "selftest" / "0").read_bytes()
            assert num_replicas(process.pid) == 1
            deadline = time.monotonic() + MANY_SECONDS

            def call() -> set[int]:
                statuses = set()
                with httpx.Client(base_url=url, timeout=MANY_SECONDS) as client:
                    while num_replicas(process.pid) < 2 and time.monotonic() < deadline:
                        for _ in range(50):
                            statuses.add(client.post("/v1/classify", content=image).status_code)
                return statuses

            with ThreadPoolExecutor(NUM_CALLERS) as callers:
                answers = [callers.submit(call) for _ in range(NUM_CALLERS)]
            assert num_replicas(process.pid) == 2
            assert set.union(*(one.result() for one in answers)) == {200}
        finally:
            process.terminate()
