"""What the clients ask a server's /v1/batch, and how they read its answers; batch_client.py sends it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from glint.core.endpoint import Deployment, Endpoint
from glint.core.errors import GlintError
from glint.core.stores import MAX_PAGE
from glint.serving.batch_answers import (
    PREFIX,
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

T = TypeVar("T")
Asked = TypeVar("Asked", bound=BaseModel)


@dataclass(frozen=True)
class Call(Generic[T]):
    """A request, with options as httpx has them, and what reads the bytes of its answer."""

    method: str
    path: str
    read: Callable[[bytes], T]
    body: BaseModel | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sent(self) -> dict[str, Any]:
        """What a Client's `request` takes; raises GlintError for values that are not of JSON."""
        try:
            json = {} if self.body is None else {"json": self.body.model_dump(mode="json")}
        except PydanticSerializationError as error:
            raise GlintError(f"what is sent to {self.path} must be JSON: {error}") from None
        return {"method": self.method, "path": PREFIX + self.path, **json, **self.options}


ONCE: Mapping[str, Any] = {"idempotent": False}
"""Of a request that is not sent again where the server may have begun with it."""


def create(
    endpoint: str, model: str, deployment: str = "main", options: Mapping[str, Any] | None = None
) -> Call[Endpoint]:
    """A new endpoint with one deployment."""
    deployments = {deployment: {"model": model, "options": dict(options or {})}}
    made = _asked(NewEndpoint, name=endpoint, deployments=deployments)
    return Call("POST", "/endpoints", Endpoint.model_validate_json, made, ONCE)


def endpoints() -> Call[list[Endpoint]]:
    """All endpoints, by name."""
    return Call("GET", "/endpoints", lambda data: list(Endpoints.model_validate_json(data).endpoints))


def endpoint(name: str) -> Call[Endpoint]:
    """One endpoint."""
    return Call("GET", f"/endpoints/{_segment(name)}", Endpoint.model_validate_json)


def deploy(endpoint: str, name: str, model: str, options: Mapping[str, Any] | None = None) -> Call[Endpoint]:
    """Add a deployment or replace the one of that name."""
    asked = _asked(Deployment, model=model, options=dict(options or {}))
    path = f"/endpoints/{_segment(endpoint)}/deployments/{_segment(name)}"
    return Call("PUT", path, Endpoint.model_validate_json, asked)


def withdraw(endpoint: str, name: str) -> Call[Endpoint]:
    """Take a deployment away."""
    path = f"/endpoints/{_segment(endpoint)}/deployments/{_segment(name)}"
    return Call("DELETE", path, Endpoint.model_validate_json, options=ONCE)


def set_default(endpoint: str, deployment: str) -> Call[Endpoint]:
    """Choose the deployment that takes the jobs which name none."""
    asked = _asked(Default, deployment=deployment)
    return Call("PUT", f"/endpoints/{_segment(endpoint)}/default", Endpoint.model_validate_json, asked)


def delete_endpoint(name: str) -> Call[None]:
    """Take an endpoint away; its jobs stay."""
    return Call("DELETE", f"/endpoints/{_segment(name)}", _nothing, options=ONCE)


def submit(
    endpoint: str,
    input: str | Sequence[str],
    *,
    deployment: str | None = None,
    options: Mapping[str, Any] | None = None,
    priority: int = 0,
    max_attempts: int = 3,
    webhook: str | None = None,
    idempotency_key: str | None = None,
) -> Call[JobAnswer]:
    """A job over a prefix, folder, manifest or list, or over the addresses themselves.

    By the endpoint's default deployment unless you name another; `options` go over those of the deployment. A request
    that is sent twice makes one job: by a key of its own unless you give one, which makes it so for ever.
    """
    source = {"uri": input} if isinstance(input, str) else {"uris": tuple(input)}
    key = {"idempotency-key": idempotency_key or uuid.uuid4().hex}
    request = _asked(
        JobRequest,
        input=source,
        deployment=deployment,
        options=dict(options or {}),
        priority=priority,
        max_attempts=max_attempts,
        webhook=webhook,
    )
    path = f"/endpoints/{_segment(endpoint)}/jobs"
    return Call("POST", path, JobAnswer.model_validate_json, request, {"headers": key})


def jobs(endpoint: str | None = None, limit: int = 100) -> Call[list[JobAnswer]]:
    """The newest jobs first, of an endpoint or of all."""
    params = {"limit": limit} | ({"endpoint": endpoint} if endpoint else {})
    return Call("GET", "/jobs", lambda data: list(Jobs.model_validate_json(data).jobs), options={"params": params})


def job(id: str) -> Call[JobAnswer]:
    """One job."""
    return Call("GET", f"/jobs/{_segment(id)}", JobAnswer.model_validate_json)


def progress(id: str) -> Call[JobProgress]:
    """How far a job is."""
    return Call("GET", f"/jobs/{_segment(id)}/progress", JobProgress.model_validate_json)


def logs(id: str) -> Call[Logs]:
    """What the driver of the latest attempt has printed."""
    return Call("GET", f"/jobs/{_segment(id)}/logs", Logs.model_validate_json)


def cancel(id: str) -> Call[JobAnswer]:
    """Stop a job; what was done stays."""
    return Call("POST", f"/jobs/{_segment(id)}/cancel", JobAnswer.model_validate_json)


def retry(id: str, what: What = "missing", options: Mapping[str, Any] | None = None) -> Call[JobAnswer]:
    """Score what is missing, what failed or everything again."""
    asked = _asked(Retry, what=what, options=dict(options or {}))
    return Call("POST", f"/jobs/{_segment(id)}/retry", JobAnswer.model_validate_json, asked, ONCE)


def delete_job(id: str) -> Call[None]:
    """Take away a job that has ended, with its outcomes."""
    return Call("DELETE", f"/jobs/{_segment(id)}", _nothing, options=ONCE)


def errors(id: str) -> Call[Errors]:
    """What went wrong, by reason."""
    return Call("GET", f"/jobs/{_segment(id)}/errors", Errors.model_validate_json)


def result_page(id: str, cursor: str | None, where: Mapping[str, Any]) -> Call[ResultPage]:
    """Some outcomes, from a cursor on."""
    params = given({**where, "cursor": cursor, "limit": MAX_PAGE})
    return Call("GET", f"/jobs/{_segment(id)}/results", ResultPage.model_validate_json, options={"params": params})


def result_file(id: str, format: str, where: Mapping[str, Any]) -> Call[bytes]:
    """All outcomes as a CSV or Parquet file."""
    return Call("GET", f"/jobs/{_segment(id)}/results", _whole, options={"params": given({**where, "format": format})})


def _segment(name: str) -> str:
    """A name as one part of a path, whatever it has in it."""
    if name in ("", ".", ".."):
        raise GlintError(f"{name!r} is no name of an endpoint, a deployment or a job")
    return quote(name, safe="")


def _asked(kind: type[Asked], **values: Any) -> Asked:
    """What is asked of the server; raises GlintError, in one line, for what it would refuse by its kind."""
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise GlintError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def _whole(data: bytes) -> bytes:
    """A file."""
    return data


def _nothing(data: bytes) -> None:
    """An answer without a body."""
