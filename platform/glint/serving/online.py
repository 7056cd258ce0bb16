"""Online serving on Ray Serve: replicas that each hold a predictor and host the HTTP API."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve._private.client import ServeControllerClient
from ray.serve.config import BackpressureConfig, HTTPOptions
from ray.serve.context import _get_global_client
from ray.serve.exceptions import RayServeException
from ray.serve.schema import LoggingConfig, ReplicaState

from glint.adapters.images import Images
from glint.core.errors import GlintError
from glint.serving.addresses import address_of, free_port, status, wait_until_answering
from glint.serving.api import create_app
from glint.serving.applications import deploy, withdraw
from glint.serving.bodies import BodyLimits
from glint.serving.guard import Access, Guard
from glint.serving.held import Held
from glint.serving.loopback import keep_to_loopback
from glint.serving.metrics import SHARED
from glint.serving.replica_log import log_beside_serve
from glint.serving.sources import Source
from glint.serving.uris import AllowedUris

LOG = logging.getLogger("glint.serving")
APPLICATION, DEPLOYMENT = "online", "classifier"
MALLOC = {
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": str(8 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(32 * 2**20),
}
"""Larger pieces, such as the pixels of large images, are the system's again as soon as they are freed."""
HTTP_SETTINGS = {"--host": "host", "--port": "port", "GLINT_SERVE_TIMEOUT_S": "request_timeout_s"}
"""What Serve must have been started with, and what it calls that."""
MAX_ONGOING, MAX_QUEUED = 512, 128
TARGET_LOAD = 0.75
"""Of a replica's threads: where more are at work for a while, another replica starts. Of slow images hardly any may
wait, so that with a target above the threads none would ever start."""
BODIES_HELD = 8
"""Of the largest size that a replica has in memory at a time, and as many blobs; of usual ones many more."""


@dataclass(frozen=True)
class Serving:
    """How models are served; pickled to each replica, and without secrets."""

    limits: BodyLimits = field(default_factory=BodyLimits)
    access: Access = field(default_factory=Access)
    images: Images = field(default_factory=Images)
    """reads the addresses that requests name"""
    uri_prefixes: tuple[str, ...] = ()
    """az:// prefixes below which requests may name addresses"""
    num_threads: int | None = None
    """images classified at a time in a replica, by default one a core"""
    max_wait_s: float = 2.0
    """an image that would wait longer is refused with 503"""
    follow_s: float = 15
    """pause between looks whether an alias has moved"""
    request_timeout_s: float = 60
    num_replicas: int | tuple[int, int] = 1
    """a number, or a least and a most, between which Serve scales by the images at work"""
    gpu_share: float = 0.5
    """of a GPU, for each replica, where there are any"""
    drain_s: float = 20
    """that a replica which stops has for the requests in flight"""


class Replica:
    """One replica: the models, their threads, and the HTTP API in front of them."""

    def __init__(self, sources: Sequence[Source], serving: Serving) -> None:
        keep_to_loopback()
        log_beside_serve()
        Path(os.environ[SHARED]).mkdir(parents=True, exist_ok=True)
        from glint.serving.classifier import Classifier
        from glint.serving.memory import RaysMemory
        from glint.serving.metrics import Metrics
        from glint.serving.models import Models

        self._stopped = threading.Event()  # first: a replica that does not come into being stops too
        self._serving = serving
        self._classifier = Classifier(serving.num_threads, serving.max_wait_s)
        self._models = Models(sources, self._classifier, Metrics(), RaysMemory())
        self._num_replicas = _least_replicas(serving.num_replicas)
        threading.Thread(target=self._follow, name="follow", daemon=True).start()

    def __serve_build_asgi_app__(self) -> Guard:
        """What Serve mounts at the application's route, once this object stands."""
        serving = self._serving
        held, blobs = (Held(BODIES_HELD * serving.limits.max_bytes) for _ in range(2))
        uris = AllowedUris(serving.images, serving.uri_prefixes, blobs)
        app = create_app(self._models, serving.limits, uris.open)
        return Guard(app, serving.access, "classify", {"/metrics": "metrics"}, lambda: self._num_replicas, held)

    def check_health(self) -> None:
        """Called by Serve every 10 s, which replaces the replica when this has raised three times."""
        self._models.check()
        self._classifier.check()

    def __del__(self) -> None:
        """Called by Serve when the replica stops."""
        self._stopped.set()

    def _follow(self) -> None:
        while not self._stopped.wait(self._serving.follow_s):
            try:
                self._models.follow()
                if isinstance(self._serving.num_replicas, tuple):
                    self._num_replicas = _running_replicas() or self._num_replicas
            except Exception:  # the thread's edge: whatever it was, the next look is due
                LOG.exception("looking whether aliases have moved went wrong")


def start_online(
    sources: Sequence[Source],
    serving: Serving | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    logs: Path | None = None,
) -> str:
    """Serve these models, the first by default, on the running Ray, and return the address once it answers.

    Each source is opened in each replica; `port` 0 takes any free one. Warnings and errors are logged to the folder
    `logs`, by default the one of Ray's session. Where Serve runs on this Ray already, `host` and `port` must be its
    own. Raises GlintError when the address cannot be had.
    """
    serving = serving or Serving()
    port, quiet = start_proxy(host, port, logs, serving.request_timeout_s)
    application = _deployment(serving).bind(tuple(sources), serving)
    deploy(application, APPLICATION, "/", quiet)
    wait_until_answering(host, port, "/openapi.json")
    return address_of(host, port)


def start_proxy(host: str, port: int, logs: Path | None, request_timeout_s: float) -> tuple[int, LoggingConfig]:
    """Start Serve on the running Ray unless it runs: the port that it listens at, and how its applications log.

    Raises GlintError when the address cannot be had, and where Serve runs with other options than these: it keeps to
    its own, and whether requests need keys is decided by `host`.
    """
    if not serve.status().proxies:
        port = free_port(host, port)
    elif port == 0:
        port = _client().http_config.port
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    logs_dir = str(logs.absolute()) if logs else None
    quiet = LoggingConfig(log_level="WARNING", enable_access_log=False, logs_dir=logs_dir)
    http_options = HTTPOptions(host=host, port=port, request_timeout_s=request_timeout_s)
    serve.start(http_options=http_options, logging_config=quiet)
    _check_same(http_options, _client().http_config)
    if status(host, port, "/-/healthz") is None:
        where = "Serve runs on this Ray at another address; name that one"
        raise GlintError(f"nothing answers at --host {host} --port {port}: {where}")
    return port, quiet


def _client() -> ServeControllerClient:
    client = _get_global_client()
    assert client is not None, "Serve runs"
    return client


def _check_same(asked: HTTPOptions, running: HTTPOptions) -> None:
    for setting, name in HTTP_SETTINGS.items():
        wanted, found = getattr(asked, name), getattr(running, name)
        if wanted != found:
            choices = f"name {found}, or shut Serve down there first"
            raise GlintError(f"{setting} is {wanted}, but Serve runs on this Ray with {name} {found}: {choices}")


def _deployment(serving: Serving) -> serve.Deployment:
    """Serve queues by number and only as the last resort; the replica sheds load by the wait that it expects."""
    return serve.deployment(
        name=DEPLOYMENT,
        max_ongoing_requests=MAX_ONGOING,
        max_queued_requests=MAX_QUEUED,
        backpressure_config=BackpressureConfig(status_code=503, retry_after_s=1),
        max_surge_percent=100,  # an upgrade starts the new replicas before it stops the old
        graceful_shutdown_timeout_s=serving.drain_s,
        graceful_shutdown_wait_loop_s=0.2,
        ray_actor_options={**resources(serving.gpu_share), "runtime_env": {"env_vars": _environment()}},
        max_constructor_retry_count=1,
        **scaling(serving),
    )(serve.ingress()(Replica))


def scaling(serving: Serving) -> dict[str, Any]:
    """What Serve is told of the number of replicas: it, or its bounds and how many images at work are for one."""
    if isinstance(serving.num_replicas, int):
        return {"num_replicas": serving.num_replicas}
    from glint.vision.engines.engine import num_cores  # with torch, which the batch API's replica does without

    least, most = serving.num_replicas
    target = TARGET_LOAD * (serving.num_threads or num_cores())
    return {"autoscaling_config": {"min_replicas": least, "max_replicas": most, "target_ongoing_requests": target}}


def resources(gpu_share: float) -> dict[str, float]:
    """Of a replica: without a share of a GPU Ray would hide those that there are."""
    on_gpu = {"num_gpus": gpu_share} if ray.cluster_resources().get("GPU") else {}
    return {"num_cpus": 0.5, **on_gpu}


def _least_replicas(num_replicas: int | tuple[int, int]) -> int:
    """With which serving begins."""
    return num_replicas if isinstance(num_replicas, int) else num_replicas[0]


def _running_replicas() -> int:
    """As Serve's controller has it; 0 while it does not say."""
    try:
        found = serve.status().applications[APPLICATION].deployments[DEPLOYMENT].replica_states
    except (RayError, RayServeException, KeyError):
        return 0
    return int(found.get(ReplicaState.RUNNING, 0))


def _environment() -> dict[str, str]:
    """Of the replicas; the folder for what they count lies beside what Ray keeps of this session on each node."""
    session = ray.get_runtime_context().get_session_name()
    return {SHARED: f"{tempfile.gettempdir()}/ray/{session}/glint-metrics", **MALLOC}


def stop_online(failed: bool = False) -> None:
    """Take away what this process has deployed, as `withdraw` does."""
    withdraw(APPLICATION, failed)
