import asyncio
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, ClassVar

import httpx
import psutil
import pytest
from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
from ray.serve.config import HTTPOptions

from glint.core.errors import GlintError
from glint.serving.addresses import free_port
from glint.serving.haproxy import REPEATED_BYTES, environment, why_not
from glint.settings import Settings
from glint.wiring import start_ray, takes_haproxy


def written_by_ray(folder: Path, port: int, replicas: Sequence[int], asked: dict[str, str]) -> Path:
    """The configuration that Ray gives HAProxy for an application with replicas at these ports."""
    servers = [ServerConfig(name=f"replica{at}", host="127.0.0.1", port=at) for at in replicas]
    backend = BackendConfig(name="online", path_prefix="/v1", app_name="online", servers=servers)
    config = HAProxyConfig(
        http_options=HTTPOptions(host="127.0.0.1", port=port),
        socket_path=str(folder / "admin.sock"),
        server_state_base=str(folder),
        server_state_file=str(folder / "state"),
        metrics_enabled=False,
        nbthread=1,
        has_received_routes=True,
        is_head=True,
        # What Ray reads from the environment when it is imported.
        retry_on=asked["RAY_SERVE_HAPROXY_RETRY_ON"],
        retries=int(asked["RAY_SERVE_HAPROXY_RETRIES"]),
        bufsize=int(asked["RAY_SERVE_HAPROXY_TUNE_BUFSIZE"]),
    )
    api = HAProxyApi(config, {"online": backend}, str(folder / "haproxy.cfg"))
    asyncio.run(_write(api))
    return Path(api.config_file_path)


async def _write(api: HAProxyApi) -> None:
    api._generate_config_file_internal()


@contextmanager
def haproxy(*replicas: int) -> Iterator[tuple[str, Path]]:
    """HAProxy as glint runs it before replicas at these ports: its address and its configuration."""
    with TemporaryDirectory(dir="/tmp") as name:  # a short path, for the sockets
        folder, port = Path(name), free_port("127.0.0.1", 0)
        asked = environment(folder, "127.0.0.1", 30)
        config = written_by_ray(folder, port, replicas, asked)
        program = [asked["RAY_SERVE_HAPROXY_BINARY_PATH"], "-db", "-f", str(config), "-dR"]
        with subprocess.Popen(program, stderr=subprocess.PIPE, text=True) as running:
            try:
                yield f"http://127.0.0.1:{port}", config
            finally:
                running.kill()


def test_haproxy_ends_with_what_started_it_even_if_that_is_killed() -> None:
    code = "import subprocess, sys, time; print(subprocess.Popen(sys.argv[1:]).pid, flush=True); time.sleep(60)"
    with TemporaryDirectory(dir="/tmp") as name:
        folder, port = Path(name), free_port("127.0.0.1", 0)
        asked = environment(folder, "127.0.0.1", 30)
        program = [asked["RAY_SERVE_HAPROXY_BINARY_PATH"], "-db", "-f", str(written_by_ray(folder, port, (1,), asked))]
        with subprocess.Popen([sys.executable, "-c", code, *program], stdout=subprocess.PIPE, text=True) as starter:
            assert starter.stdout
            started = psutil.Process(int(starter.stdout.readline()))
            try:
                until(lambda: bool(started.net_connections()))
                starter.kill()
                until(lambda: not has_not_ended(started))
            finally:
                starter.kill()
                if has_not_ended(started):
                    started.kill()


def has_not_ended(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def until(so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Replica(BaseHTTPRequestHandler):
    """Answers so many requests, whatever the connection, and hangs up in the middle of every later one."""

    protocol_version, wbufsize = "HTTP/1.1", -1
    answers: ClassVar[Counter[int]] = Counter()

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path == "/-/healthz" or self.answers[self.server.server_port] > 0:
            self.answers[self.server.server_port] -= self.path != "/-/healthz"
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()
        else:
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def replica(answers: int) -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Replica) as server:
        Replica.answers[server.server_port] = answers
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_haproxy_that_is_asked_for_where_it_cannot_be_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with pytest.raises(GlintError, match=r"^GLINT_SERVE_INGRESS=haproxy: .*--host ::1; name proxy or auto$"):
        start_ray(Settings(serve_ingress="haproxy"), serve_at="::1")
    assert not takes_haproxy(Settings(serve_ingress="auto"), "::1")
    assert takes_haproxy(Settings(serve_ingress="auto"), "127.0.0.1")


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_haproxy_serves_where_programs_may_be_started_and_addresses_are_ipv4(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    assert why_not(host) is None
    monkeypatch.setattr("os.statvfs", lambda _: SimpleNamespace(f_flag=os.ST_NOEXEC))
    assert why_not(host) == "no program can be started from /tmp"


def test_haproxy_listens_where_glint_serves_and_nowhere_else_and_answers_with_problems() -> None:
    with haproxy(free_port("127.0.0.1", 0)) as (url, config):
        answer = first_answer(f"{url}/elsewhere")
        assert listened(config) == [f"bind {url.removeprefix('http://')}"]
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
        stopped = httpx.post(f"{url}/elsewhere/classify")
        assert (stopped.status_code, stopped.headers["content-type"]) == (503, "application/problem+json")
        assert (stopped.json()["reason"], stopped.headers["retry-after"]) == ("not_ready", "1")
        answer = httpx.get(f"{url}/v1/classify")
        assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
        assert (answer.headers["retry-after"], answer.json()["reason"]) == ("1", "overloaded")
        for path in ("/elsewhere", "/v1/classify"):
            own = httpx.get(f"{url}{path}", headers={"x-request-id": "line-4"})
            assert own.headers.get_list("x-request-id") == ["line-4"]
            given = [httpx.get(f"{url}{path}").headers["x-request-id"] for _ in range(2)]
            assert given[0] != given[1]
            garbled = httpx.get(f"{url}{path}", headers=[(b"x-request-id", b"a\xe9b")]).headers.get_list("x-request-id")
            assert len(garbled) == 1
            assert garbled[0].isascii()
        assert (config.parent / "admin.sock").stat().st_mode & 0o777 == 0o600


def test_what_a_dying_replica_leaves_unanswered_another_one_answers_unless_it_makes_a_job() -> None:
    image = b"i" * (REPEATED_BYTES // 2)
    with replica(answers=2) as dying, replica(answers=1000) as healthy, haproxy(dying, healthy) as (url, _):
        first_answer(f"{url}/elsewhere")
        with httpx.Client(base_url=url) as client:
            answers = [client.post("/v1/classify", content=image) for _ in range(12)]
            assert {answer.status_code for answer in answers} == {200}
            assert Replica.answers[dying] == 0, "it answered, then hung up"

    with replica(answers=0) as dying, replica(answers=1000) as healthy, haproxy(dying, healthy) as (url, _):
        first_answer(f"{url}/elsewhere")
        made = [httpx.post(f"{url}/v1/batch/endpoints/a/jobs", content=b"{}").status_code for _ in range(4)]
        assert set(made) == {200, 502}
        assert made.count(200) == 1000 - Replica.answers[healthy], "none was made twice"


def listened(config: Path) -> list[str]:
    return [line.strip() for line in config.read_text().splitlines() if line.strip().startswith("bind ")]


def first_answer(url: str) -> httpx.Response:
    for _ in range(1000):
        try:
            return httpx.get(url)
        except httpx.ConnectError:
            continue
    pytest.fail("HAProxy does not answer")
