"""The batch API on Ray Serve: it keeps the books and supervises, and may be restarted at any time."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ray import serve

from glint.serving.addresses import address_of, wait_until_answering
from glint.serving.applications import deploy, withdraw
from glint.serving.batch_answers import PREFIX
from glint.serving.batch_jobs import create_batch_app
from glint.serving.guard import Access, Guard
from glint.serving.loopback import keep_to_loopback
from glint.serving.online import Serving, start_proxy
from glint.serving.replica_log import log_beside_serve

if TYPE_CHECKING:
    from glint.serving.batch_desk import Desk
    from glint.serving.supervisor import Supervisor

APPLICATION = "batch"
MAX_BODY_BYTES = 16_000_000
"""A job may name 10,000 images, by addresses of a thousand letters of ASCII and more."""


class Bureau:
    """The desk that callers stand at, and the supervisor behind it in a thread and event loop of its own."""

    def __init__(
        self, open_desk: Callable[[], Desk], open_supervisor: Callable[[], Supervisor], access: Access
    ) -> None:
        keep_to_loopback()
        log_beside_serve()
        # Ray's client for jobs and httpx would note each request.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        self._desk, self._access = open_desk(), access
        supervisor = open_supervisor()
        self._thread = threading.Thread(target=lambda: asyncio.run(supervisor.run()), name="supervisor", daemon=True)
        self._thread.start()

    def __serve_build_asgi_app__(self) -> Guard:
        """What Serve mounts at the application's route."""
        return Guard(create_batch_app(self._desk), self._access, "batch", max_bytes=MAX_BODY_BYTES)

    def check_health(self) -> None:
        """Called by Serve every 10 s, which replaces the replica when this has raised three times."""
        if not self._thread.is_alive():
            raise RuntimeError("the supervisor's thread has ended")


DEPLOYMENT = serve.deployment(
    name="bureau",
    max_ongoing_requests=64,
    graceful_shutdown_timeout_s=5,
    graceful_shutdown_wait_loop_s=0.2,
    ray_actor_options={"num_cpus": 0},
    max_constructor_retry_count=1,
)(serve.ingress()(Bureau))


def start_batch(
    open_desk: Callable[[], Desk],
    open_supervisor: Callable[[], Supervisor],
    serving: Serving | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    logs: Path | None = None,
) -> str:
    """Serve the batch API at PREFIX on the running Ray, and return its server's address once it answers.

    Both functions are pickled and called in the replica. The rest is as for `start_online`.
    """
    serving = serving or Serving()
    port, quiet = start_proxy(host, port, logs, serving.request_timeout_s)
    application = DEPLOYMENT.bind(open_desk, open_supervisor, serving.access)
    deploy(application, APPLICATION, PREFIX, quiet)
    wait_until_answering(host, port, f"{PREFIX}/openapi.json")
    return address_of(host, port)


def stop_batch(failed: bool = False) -> None:
    """Take away what this process has deployed, as `withdraw` does; its jobs go on."""
    withdraw(APPLICATION, failed)
