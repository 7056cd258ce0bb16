"""`glint serve` as people start it, through either ingress: one start of each for all that only that can show."""

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance, unsupported_method
from tests.colours import register
from tests.serving.collector import Collector, collecting

from glint.adapters.registry import Registry
from glint.settings import Settings
from glint.vision.bundle import Bundle
from glint.wiring import open_registry

pytestmark = pytest.mark.slow
NAME = "colours"
COMMAND = [sys.executable, "-c", "from glint.cli.app import main; main()", "serve"]
SETTINGS = {"GLINT_SERVE_FOLLOW_S": "0.2", "GLINT_SERVE_TIMEOUT_S": "5", "GLINT_SERVE_MAX_WAIT_S": "60"}
MANY_SECONDS, EXAMPLES = 60, 15
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", 24 * "0" + "01000000"}
"""127.0.0.1, ::ffff:127.0.0.1 and ::1, as the kernel writes them."""


@dataclass(frozen=True)
class Served:
    """A running `glint serve` of the champion, which version 1 is; version 3 does not see what its self-test says."""

    process: subprocess.Popen[str]
    client: httpx.Client
    registry: Registry
    image: bytes
    home: Path

    def ask(self) -> httpx.Response:
        return self.client.post("/v1/classify", content=self.image)

    def until(self, seen: Callable[[], bool]) -> None:
        """Ask on from four callers until something is seen; each request is answered."""
        stop = threading.Event()

        def caller() -> set[int]:
            statuses = set()
            while not stop.is_set():
                statuses.add(self.ask().status_code)
            return statuses

        with ThreadPoolExecutor(4) as callers:
            asking = [callers.submit(caller) for _ in range(4)]
            timer = threading.Timer(MANY_SECONDS, stop.set)
            timer.start()
            while not seen() and not stop.is_set():
                pass
            timer.cancel()
            assert not stop.is_set(), "in vain"
            stop.set()
        assert set.union(*(one.result() for one in asking)) == {200}


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


@pytest.fixture(scope="module", params=["proxy", "auto"])
def served(
    request: pytest.FixtureRequest,
    sighted: Bundle,
    blind: Bundle,
    collector: Collector,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("serving")
    registry = open_registry(Settings(home=home))
    wrong = home / "wrong" / "artifacts" / "bundle"
    shutil.copytree(sighted.directory, wrong)
    shutil.copy(blind.directory / "weights.safetensors", wrong)
    assert [register(registry, NAME, bundle) for bundle in (sighted, blind, Bundle(wrong))] == ["1", "2", "3"]
    registry.promote(NAME, "1", "champion")
    command = [*COMMAND, "--model", f"models:/{NAME}@champion", "--port", "0", "--json"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    ingress = {"GLINT_SERVE_INGRESS": request.param, "GLINT_OTLP_ENDPOINT": collector.url}
    environment = os.environ | SETTINGS | ingress | {"GLINT_HOME": str(home)}
    with subprocess.Popen(command, env=environment, text=True, start_new_session=True, **pipes) as process:
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"]
            image = (sighted.directory / "selftest" / "0").read_bytes()
            with httpx.Client(base_url=url, timeout=MANY_SECONDS) as client:
                yield Served(process, client, registry, image, home)
        finally:
            process.kill()


def version(served: Served) -> str:
    return str(served.ask().json()["model"]["version"])


def test_no_request_fails_while_the_alias_moves(served: Served) -> None:
    assert version(served) == "1"
    served.registry.promote(NAME, "2", "champion")
    served.until(lambda: version(served) == "2")


def test_a_version_that_fails_its_selftest_is_refused_and_the_old_one_serves_on(served: Served) -> None:
    before = version(served)
    served.registry.promote(NAME, "3", "champion")
    served.until(lambda: 'result="refused"' in served.client.get("/metrics").text)
    assert version(served) == before
    said = "".join(log.read_text() for log in (served.home / "logs").glob("replica_online_*.log"))
    assert f"models:/{NAME}/3 with policy " in said
    assert "fails its self-test" in said


def test_an_id_that_serve_cannot_read_is_replaced(served: Served) -> None:
    given = served.client.post("/v1/classify", content=served.image, headers=[(b"x-request-id", b"a\xe9b")])
    assert given.status_code == 200
    assert given.headers["x-request-id"].isascii()


@pytest.mark.parametrize("header", ["x-request-timeout-seconds", "X-Request-Timeout-Seconds"])
def test_callers_cannot_shorten_serves_time_limit(served: Served, header: str) -> None:
    response = served.client.post("/v1/classify", content=served.image, headers={header: "0.000001"})
    assert response.status_code == 200


def test_callers_cannot_switch_serves_time_limit_off(served: Served) -> None:
    switches = {"x-request-timeout-seconds": "0", "x-request-disconnect-disabled": "?1"}
    connection = half_sent(served, switches)
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["reason"]) == (408, "timed_out")


def test_it_listens_on_loopback_alone(served: Served) -> None:
    """Every process of the server: Ray's, Serve's and HAProxy."""
    everything = list(Path("/proc").glob("[0-9]*"))
    processes = [process for process in everything if session_of(int(process.name)) == served.process.pid]
    assert len(processes) > 5
    sockets = {link for process in processes for link in links_below(process / "fd")}
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            _, local, remote, _, _, _, _, _, _, inode, *_ = line.split()
            if remote.endswith(":0000") and f"socket:[{inode}]" in sockets:
                assert local.partition(":")[0] in LOOPBACK, line


def session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def links_below(folder: Path) -> list[str]:
    try:
        return [str(link.readlink()) for link in folder.iterdir()]
    except OSError:
        return []


def test_a_request_goes_on_with_the_trace_of_its_caller(served: Served, collector: Collector) -> None:
    trace = os.urandom(16).hex()
    served.client.post("/v1/classify", content=served.image, headers={"traceparent": f"00-{trace}-{16 * 'a'}-01"})

    def sent() -> list[str]:
        return [span.name for span in collector.spans if span.trace_id.hex() == trace]

    served.until(lambda: any("replica" in name for name in sent()))
    assert any("replica" in name for name in sent())


def test_the_running_server_does_what_openapi_says(served: Served) -> None:
    """Behind Serve and its ingress too, with whatever a client may send over a socket."""
    schema = schemathesis.openapi.from_url(f"{served.client.base_url}/openapi.json")
    checked: Counter[str] = Counter()
    for operation in (found.ok() for found in schema.get_all_operations()):
        nothing_to_vary = not (list(operation.iter_parameters()) or operation.body)
        for mode in [GenerationMode.POSITIVE] if nothing_to_vary else GenerationMode:

            @settings(max_examples=EXAMPLES, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
            @given(operation.as_strategy(generation_mode=mode))
            def check(case: Case) -> None:
                case.call_and_validate(excluded_checks=[positive_data_acceptance, unsupported_method])
                checked[case.path] += 1

            check()
    assert {"/v1/classify", "/v1/model"} <= set(checked)


def test_what_is_in_flight_at_sigterm_is_answered(served: Served) -> None:
    """The last of all, for it ends the server."""
    connection = half_sent(served, {})
    served.process.send_signal(signal.SIGTERM)
    assert served.process.stderr is not None
    lines = iter(served.process.stderr.readline, "")
    assert any(line.startswith("stopping") for line in lines)
    connection.send(served.image[10:])
    assert connection.getresponse().status == 200
    assert served.process.wait(timeout=MANY_SECONDS) == 0


def half_sent(served: Served, headers: dict[str, str]) -> http.client.HTTPConnection:
    """A connection on which the beginning of an image has been sent."""
    address = urlsplit(str(served.client.base_url))
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=MANY_SECONDS)
    connection.putrequest("POST", "/v1/classify")
    for name, value in (headers | {"content-length": str(len(served.image))}).items():
        connection.putheader(name, value)
    connection.endheaders(served.image[:10])
    return connection
