"""`glint serve` with keys and `--replicas MIN:MAX`, as people start it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil
import pytest

from glint.serving.keys import add_key
from glint.serving.online import APPLICATION
from glint.settings import Settings
from glint.vision.bundle import Bundle
from glint.wiring.online import keys_path

pytestmark = pytest.mark.slow
NUM_CALLERS, MANY_SECONDS = 24, 180
REPLICA = f"ray::ServeReplica:{APPLICATION}:"


class Served(NamedTuple):
    """A server's process, address and key, and an image for it."""

    server: int
    url: str
    key: str
    image: bytes


def num_replicas(server: int) -> int:
    return sum(title(process).startswith(REPLICA) for process in psutil.Process(server).children(recursive=True))


def title(process: psutil.Process) -> str:
    """What Ray calls it; nothing once it has ended."""
    with suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline())
    return ""


@pytest.fixture(scope="module")
def served(sighted: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("guarded")
    key = add_key(keys_path(Settings(home=home)), "line-4", ("classify",))
    command = [Path(sys.executable).with_name("glint"), "serve", "--model", sighted.directory, "--port", "0", "--json"]
    command += ["--auth", "--replicas", "1:2"]
    environment = os.environ | {"GLINT_HOME": str(home), "GLINT_SERVE_MAX_WAIT_S": "60"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as process:
        try:
            assert process.stdout is not None
            told = json.loads(process.stdout.readline())
            assert told["auth"]
            yield Served(process.pid, told["url"], key, (sighted.directory / "selftest" / "0").read_bytes())
        finally:
            process.terminate()


def test_both_apis_ask_for_a_key_of_their_scope(served: Served) -> None:
    key = {"x-api-key": served.key}
    with httpx.Client(base_url=served.url, timeout=MANY_SECONDS) as client:
        for path in ("/openapi.json", "/v1/batch/openapi.json", "/v2/health/ready"):
            assert client.get(path).status_code == 200
        assert client.post("/v1/classify", content=served.image).status_code == 401
        assert client.get("/v1/batch/endpoints").status_code == 401
        assert client.get("/v1/batch/endpoints", headers=key).status_code == 403
        assert client.post("/v1/classify", content=served.image, headers=key).status_code == 200


def test_a_second_replica_comes_under_load_and_no_request_fails(served: Served) -> None:
    assert num_replicas(served.server) == 1
    deadline = time.monotonic() + MANY_SECONDS

    def call() -> set[int]:
        statuses = set()
        with httpx.Client(base_url=served.url, timeout=MANY_SECONDS, headers={"x-api-key": served.key}) as client:
            while num_replicas(served.server) < 2 and time.monotonic() < deadline:
                for _ in range(50):
                    statuses.add(client.post("/v1/classify", content=served.image).status_code)
        return statuses

    with ThreadPoolExecutor(NUM_CALLERS) as callers:
        answers = [callers.submit(call) for _ in range(NUM_CALLERS)]
    assert num_replicas(served.server) == 2
    assert set.union(*(one.result() for one in answers)) == {200}
