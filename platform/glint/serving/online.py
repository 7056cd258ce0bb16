"""Online serving on Ray Serve: replicas that each hold a predictor and host the HTTP API."""

from __future__ import annotations

import http.client
import logging
import socket
import time
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import ray
from fastapi import FastAPI
from ray import serve
from ray.serve.config import BackpressureConfig, HTTPOptions
from ray.serve.schema import LoggingConfig

from glint.core.errors import GlintError
from glint.serving.api import create_app

if TYPE_CHECKING:
    from glint.vision.predictor import Predictor

APPLICATION = "online"
READY_TIMEOUT_S = 30
REQUEST_TIMEOUT_S = 120


class Replica:
    """One replica: a predictor, its threads, and the HTTP API in front of them."""

    def __init__(self, open_predictor: Callable[[], Predictor], max_bytes: int, num_threads: int | None) -> None:
        from glint.serving.classifier import Classifier

        self._predictor = open_predictor()
        self._classifier = Classifier(self._predictor, num_threads)
        self._max_bytes = max_bytes

    def __serve_build_asgi_app__(self) -> FastAPI:
        """What Serve mounts at the application's route, once this object stands."""
        predictor = self._predictor
        return create_app(self._classifier.classify, predictor.model, predictor.classes, self._max_bytes)

    def check_health(self) -> None:
        """Called by Serve every 10 s, which replaces the replica when this has raised three times."""
        self._classifier.check()


DEPLOYMENT = serve.deployment(
    name="classifier",
    max_ongoing_requests=64,
    max_queued_requests=128,
    backpressure_config=BackpressureConfig(status_code=503, retry_after_s=1),
    graceful_shutdown_timeout_s=20,
    graceful_shutdown_wait_loop_s=0.2,
    ray_actor_options={"num_cpus": 0.5},
    max_constructor_retry_count=1,
)(serve.ingress()(Replica))


def start_online(
    open_predictor: Callable[[], Predictor],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    max_bytes: int = 64_000_000,
    num_threads: int | None = None,
    logs: Path | None = None,
) -> str:
    """Serve the predictor that `open_predictor` opens, on the running Ray, and return the address once it answers.

    `open_predictor` is pickled and called in each replica; `port` 0 takes any free one; `num_threads` images are
    classified at a time in a replica, by default one a core. Warnings and errors, and no accesses, are logged to the
    folder `logs`, by default the one of Ray's session. Where Serve runs on this Ray already, `host` and `port` must be
    its own. Raises GlintError when the address cannot be had.
    """
    port, quiet = start_proxy(host, port, logs)
    application = DEPLOYMENT.bind(open_predictor, max_bytes, num_threads)
    serve.run(application, name=APPLICATION, route_prefix="/", logging_config=quiet)
    wait_until_answering(host, port, "/v1/model")
    return address_of(host, port)


def start_proxy(host: str, port: int, logs: Path | None) -> tuple[int, LoggingConfig]:
    """Start Serve on the running Ray unless it runs: the port that it listens at, and how its applications log.

    Raises GlintError when the address cannot be had.
    """
    if not serve.status().proxies:
        port = free_port(host, port)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    logs_dir = str(logs.absolute()) if logs else None
    quiet = LoggingConfig(log_level="WARNING", enable_access_log=False, logs_dir=logs_dir)
    http_options = HTTPOptions(host=host, port=port, request_timeout_s=REQUEST_TIMEOUT_S)
    serve.start(http_options=http_options, logging_config=quiet)
    if _status(host, port, "/-/healthz") is None:
        where = "Serve runs on this Ray at another address; name that one"
        raise GlintError(f"nothing answers at --host {host} --port {port}: {where}")
    return port, quiet


def address_of(host: str, port: int) -> str:
    """Where a server that listens there is reached from this machine."""
    return f"http://{_bracketed(_reachable(host))}:{port}"


def stop_online() -> None:
    """Let the requests in flight finish, then take the application away; Serve itself ends with its Ray.

    Does nothing where there is nothing to stop.
    """
    if ray.is_initialized() and APPLICATION in serve.status().applications:  # unasked, Serve would start a Ray
        serve.delete(APPLICATION)


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
    except OSError as error:
        choices = "name a free port (0 takes any) and an address of this machine"
        raise GlintError(f"cannot listen on --host {host} --port {port}: {error.strerror}; {choices}") from None


def wait_until_answering(host: str, port: int, path: str) -> None:
    """The replicas are ready before the proxy has heard of the route."""
    deadline = perf_counter() + READY_TIMEOUT_S
    while _status(host, port, path) != 200:
        if perf_counter() > deadline:
            raise TimeoutError(f"the application runs, but {host}:{port} does not answer with it")
        time.sleep(0.05)


def _status(host: str, port: int, path: str) -> int | None:
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
