"""Drivers of batch jobs as Ray jobs: each is a process of its own, which lives on when the server restarts."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from glint.core.submission import DriverStatus

T = TypeVar("T")

API_MODULES = "JobHead,NodeHead"
"""Of Ray's API server: job submission, and what tells it where the head node is. The one that would ask the metadata
addresses of three clouds, for usage reports, is not among them."""
ALREADY_SUBMITTED = "already exists"


class RayJobs:
    """core.submission.Drivers by job submission to the Ray whose GCS is at `address`; opens nothing before its use.

    `environment` is what every driver finds in its own, beside what the Ray was started with.
    """

    def __init__(self, address: str, environment: Mapping[str, str]) -> None:
        self.cluster = address
        self.environment = dict(environment)
        self._client: Any = None

    def submit(self, name: str, job_id: str) -> None:
        """Start the driver of a job under that name; a name that was submitted before starts nothing."""
        entrypoint = shlex.join([sys.executable, "-m", "glint.cli.job", "--job", job_id])
        try:
            self._opened().submit_job(
                entrypoint=entrypoint,
                submission_id=name,
                runtime_env={"env_vars": self.environment},
                metadata={"glint_job": job_id},
            )
        except RuntimeError as error:  # whatever the server answers but success
            if ALREADY_SUBMITTED not in str(error):
                raise

    def status(self, name: str) -> DriverStatus | None:
        """How the driver is, None where this Ray knows no such name."""
        found = self._known(lambda client: client.get_job_status(name))
        return None if found is None else _STATUSES[str(found)]

    def logs(self, name: str) -> str:
        """What it has printed so far."""
        return self._known(lambda client: str(client.get_job_logs(name))) or ""

    def stop(self, name: str) -> None:
        """Ask it to end; Ray kills it after 3 seconds."""
        self._known(lambda client: client.stop_job(name))

    def _known(self, ask: Callable[[Any], T]) -> T | None:
        try:
            return ask(self._opened())
        except RuntimeError as error:
            if "does not exist" in str(error):
                return None
            raise

    def _opened(self) -> Any:
        if self._client is None:
            from ray.dashboard.utils import ray_address_to_api_server_url
            from ray.job_submission import JobSubmissionClient

            self._client = JobSubmissionClient(ray_address_to_api_server_url(self.cluster))
        return self._client


_STATUSES: dict[str, DriverStatus] = {
    "PENDING": "pending",
    "RUNNING": "running",
    "SUCCEEDED": "succeeded",
    "FAILED": "failed",
    "STOPPED": "stopped",
}


@contextmanager
def job_submission_alone() -> Iterator[None]:
    """A Ray that is started inside has job submission of all that its API server could do.

    Its agent, which starts drivers, listens at any free port: at Ray's own one a second Ray of this machine would take
    submissions and never start them.
    """
    from ray._private import services
    from ray._private.ray_constants import DEFAULT_DASHBOARD_AGENT_LISTEN_PORT

    start = services.start_ray_process

    def start_less(command: list[str], *arguments: Any, **options: Any) -> Any:
        if any(str(part).endswith("dashboard.py") for part in command):
            command = [*command, f"--modules-to-load={API_MODULES}"]
        fixed = f"--listen-port={DEFAULT_DASHBOARD_AGENT_LISTEN_PORT}"
        return start([str(part).replace(fixed, "--listen-port=0") for part in command], *arguments, **options)

    services.start_ray_process = start_less
    try:
        yield
    finally:
        services.start_ray_process = start
