import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import psutil
import pytest
import ray

from glint.adapters.network import on_loopback_alone, ray_wants_token, reach_ray
from glint.core.errors import GlintError


@pytest.fixture
def web_server() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_what_is_no_ray_is_told_from_one(web_server: str, scheme: str) -> None:
    with pytest.raises(GlintError, match=f"what listens at {web_server} is no Ray; check GLINT_RAY_ADDRESS"):
        reach_ray(scheme + web_server)


def test_a_ray_that_does_not_answer_is_named_before_ray_waits_for_it() -> None:
    for address in ("127.0.0.1:1", "ray://127.0.0.1:1"):
        with pytest.raises(GlintError, match=r"127\.0\.0\.1:1 does not answer .* check GLINT_RAY_ADDRESS"):
            reach_ray(address)


def test_a_host_that_cannot_be_one_is_named() -> None:
    with pytest.raises(GlintError, match=r"a\.\.b:80 does not answer .* check GLINT_RAY_ADDRESS"):
        reach_ray("a..b:80")


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1", "ray://somewhere", "host:", ":8", "host:port"])
def test_an_address_without_host_or_port_is_refused(address: str) -> None:
    with pytest.raises(GlintError, match="must be HOST:PORT"):
        reach_ray(address)


def test_what_speaks_as_ray_does_is_let_through() -> None:
    with grpc_server() as address:
        assert [refusal(one) for one in ("auto", address, f"ray://{address}")] == [None, None, None]
    assert refusal(address)


def test_a_ray_is_asked_whether_it_wants_a_token(ray_cluster: None) -> None:
    assert ray_wants_token(ray.get_runtime_context().gcs_address)  # one of this machine alone does
    with grpc_server() as address:
        assert not ray_wants_token(address)
    assert not ray_wants_token("127.0.0.1:1")


def test_a_server_of_the_loopback_interface_alone_is_told_from_one_of_all(web_server: str) -> None:
    assert on_loopback_alone(web_server)
    assert on_loopback_alone(f"ray://{web_server}")
    assert not on_loopback_alone("auto")
    others = [one.address for every in psutil.net_if_addrs().values() for one in every if one.family == socket.AF_INET]
    if all(address.startswith("127.") for address in others):
        pytest.skip("this machine has no address but those of the loopback interface")
    with socket.create_server(("0.0.0.0", 0)) as everywhere:
        assert not on_loopback_alone(f"127.0.0.1:{everywhere.getsockname()[1]}")


def test_a_ray_of_this_machine_alone_is_joined_by_its_address(ray_cluster: None) -> None:
    code = "from glint.settings import Settings; from glint.wiring import start_ray; start_ray(Settings()); "
    code += "import ray; print(ray.get_runtime_context().gcs_address)"
    address = ray.get_runtime_context().gcs_address
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment["GLINT_RAY_ADDRESS"] = address
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout.split() == [address], done.stderr


def refusal(address: str) -> str | None:
    try:
        reach_ray(address)
    except GlintError as error:
        return str(error)
    return None


@contextmanager
def grpc_server() -> Iterator[str]:
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(None).wait()
