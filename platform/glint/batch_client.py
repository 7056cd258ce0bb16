"""Batch endpoints and their jobs, for programs that talk to a running glint.

with glint.Client("http://127.0.0.1:8000") as client:
    job = client.batch.submit("boards", "az://images/line-4")
    print(client.batch.wait(job.id).statuses)
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from glint.core.endpoint import Deployment, Endpoint
from glint.core.outcome import Outcome
from glint.core.submission import WAITING, JobInput
from glint.serving.batch_answers import (
    Default,
    Endpoints,
    Errors,
    JobAnswer,
    JobProgress,
    JobRequest,
    Jobs,
    Logs,
    NewEndpoint,
    ResultPage,
    Retry,
    What,
)

PREFIX = "/v1/batch"
POLL_S = 1.0


class Batch:
    """What a server's /v1/batch can do, by `request` of a Client; methods raise as the Client's do."""

    def __init__(self, request: Callable[..., httpx.Response]) -> None:
        self._request = request

    def create(
        self, endpoint: str, model: str, deployment: str = "main", options: Mapping[str, Any] | None = None
    ) -> Endpoint:
        """A new endpoint with one deployment."""
        made = NewEndpoint(
            name=endpoint, deployments={deployment: Deployment(model=model, options=dict(options or {}))}
        )
        return Endpoint.model_validate_json(self._send("POST", "/endpoints", made, idempotent=False).content)

    def endpoints(self) -> list[Endpoint]:
        """All endpoints, by name."""
        return list(Endpoints.model_validate_json(self._send("GET", "/endpoints").content).endpoints)

    def endpoint(self, name: str) -> Endpoint:
        """One endpoint."""
        return Endpoint.model_validate_json(self._send("GET", f"/endpoints/{name}").content)

    def deploy(self, endpoint: str, name: str, model: str, options: Mapping[str, Any] | None = None) -> Endpoint:
        """Add a deployment or replace the one of that name."""
        asked = Deployment(model=model, options=dict(options or {}))
        path = f"/endpoints/{endpoint}/deployments/{name}"
        return Endpoint.model_validate_json(self._send("PUT", path, asked).content)

    def withdraw(self, endpoint: str, name: str) -> Endpoint:
        """Take a deployment away."""
        path = f"/endpoints/{endpoint}/deployments/{name}"
        return Endpoint.model_validate_json(self._send("DELETE", path, idempotent=False).content)

    def set_default(self, endpoint: str, deployment: str) -> Endpoint:
        """Choose the deployment that takes the jobs which name none."""
        path = f"/endpoints/{endpoint}/default"
        return Endpoint.model_validate_json(self._send("PUT", path, Default(deployment=deployment)).content)

    def delete_endpoint(self, name: str) -> None:
        """Take an endpoint away; its jobs stay."""
        self._send("DELETE", f"/endpoints/{name}", idempotent=False)

    def submit(
        self, endpoint: str, input: str | Sequence[str], *, idempotency_key: str | None = None, **asked: Any
    ) -> JobAnswer:
        """A job over a prefix, folder, manifest or list, or over the addresses themselves.

        `asked` are further fields of a request: deployment, options, priority, max_attempts, webhook. A request that is
        sent twice makes one job: by a key of its own unless you give one, which makes it so for ever.
        """
        source = JobInput(uri=input) if isinstance(input, str) else JobInput(uris=tuple(input))
        key = {"idempotency-key": idempotency_key or uuid.uuid4().hex}
        request = JobRequest(input=source, **asked)
        return _job(self._send("POST", f"/endpoints/{endpoint}/jobs", request, headers=key))

    def jobs(self, endpoint: str | None = None, limit: int = 100) -> list[JobAnswer]:
        """The newest jobs first, of an endpoint or of all."""
        params = {"limit": limit} | ({"endpoint": endpoint} if endpoint else {})
        return list(Jobs.model_validate_json(self._send("GET", "/jobs", params=params).content).jobs)

    def job(self, id: str) -> JobAnswer:
        """One job."""
        return _job(self._send("GET", f"/jobs/{id}"))

    def progress(self, id: str) -> JobProgress:
        """How far a job is."""
        return JobProgress.model_validate_json(self._send("GET", f"/jobs/{id}/progress").content)

    def watch(self, id: str) -> Iterator[JobProgress]:
        """How far it is, again and again until it has ended."""
        while True:
            progress = self.progress(id)
            yield progress
            if progress.status not in WAITING:
                return
            time.sleep(POLL_S)

    def wait(self, id: str) -> JobProgress:
        """What it came to, once it has ended."""
        *_, last = self.watch(id)
        return last

    def logs(self, id: str) -> Logs:
        """What the driver of the latest attempt has printed."""
        return Logs.model_validate_json(self._send("GET", f"/jobs/{id}/logs").content)

    def cancel(self, id: str) -> JobAnswer:
        """Stop a job; what was done stays."""
        return _job(self._send("POST", f"/jobs/{id}/cancel"))

    def retry(self, id: str, what: What = "missing", options: Mapping[str, Any] | None = None) -> JobAnswer:
        """Score what is missing, what failed or everything again."""
        asked = Retry(what=what, options=dict(options or {}))
        return _job(self._send("POST", f"/jobs/{id}/retry", asked, idempotent=False))

    def delete_job(self, id: str) -> None:
        """Take away a job that has ended, with its outcomes."""
        self._send("DELETE", f"/jobs/{id}", idempotent=False)

    def results(self, id: str, **where: Any) -> Iterator[Outcome]:
        """The outcomes in the order of their ids; `where` by status, label, decision, min_ and max_confidence."""
        params = {name: value for name, value in where.items() if value is not None} | {"limit": 1000}
        while True:
            answer = self._send("GET", f"/jobs/{id}/results", params=params)
            page = ResultPage.model_validate_json(answer.content)
            yield from page.outcomes
            if page.cursor is None:
                return
            params["cursor"] = page.cursor

    def save_results(self, id: str, out: Path, format: str, **where: Any) -> None:
        """Write all of them into a CSV or Parquet file."""
        params = {name: value for name, value in where.items() if value is not None} | {"format": format}
        out.write_bytes(self._send("GET", f"/jobs/{id}/results", params=params).content)

    def errors(self, id: str) -> Errors:
        """What went wrong, by reason."""
        return Errors.model_validate_json(self._send("GET", f"/jobs/{id}/errors").content)

    def _send(self, method: str, path: str, body: Any = None, **options: Any) -> httpx.Response:
        json = {} if body is None else {"json": body.model_dump(mode="json")}
        return self._request(method, PREFIX + path, **json, **options)


def _job(response: httpx.Response) -> JobAnswer:
    return JobAnswer.model_validate_json(response.content)
