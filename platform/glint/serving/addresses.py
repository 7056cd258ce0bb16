"""The address that a server listens at: whether it can be had, what it is called, and whether it answers."""

from __future__ import annotations

import http.client
import socket
import time
from time import perf_counter

from glint.core.errors import GlintError

READY_TIMEOUT_S = 30


def address_of(host: str, port: int) -> str:
    """Where a server that listens there is reached from this machine."""
    return f"http://{_bracketed(_reachable(host))}:{port}"


def free_port(host: str, port: int) -> int:
    """`port`, or any free one for 0; raises GlintError when this machine cannot listen there.

    Serve itself would not notice: it shares a port with whatever shares it too.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return int(probe.getsockname()[1])
    except (OSError, UnicodeError) as error:
        choices = "name a free port (0 takes any) and an address of this machine"
        why = error.strerror if isinstance(error, OSError) else "that is no name of a host"
        raise GlintError(f"cannot listen on --host {host} --port {port}: {why}; {choices}") from None


def wait_until_answering(host: str, port: int, path: str) -> None:
    """The replicas are ready before the proxy has heard of the route."""
    deadline = perf_counter() + READY_TIMEOUT_S
    while status(host, port, path) != 200:
        if perf_counter() > deadline:
            raise TimeoutError(f"the application runs, but {host}:{port} does not answer with it")
        time.sleep(0.05)


def status(host: str, port: int, path: str) -> int | None:
    """The HTTP status of a GET, None where nothing answers."""
    connection = http.client.HTTPConnection(_reachable(host), port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _reachable(host: str) -> str:
    """Where a server that listens on every address answers on this machine."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
