"""glint.Client and glint.AsyncClient: programs that talk to a running glint.

with glint.Client("http://127.0.0.1:8000") as client:
    print(client.classify("board.jpg").label)

Connections are kept and used again. Whatever a server may answer otherwise a moment later is tried again, with pauses
that grow, differ by chance, and are no shorter than the Retry-After in seconds that the server asks for. An image that
the server broke off at may be the end of it: it is sent once more at most. One that takes too long, by the server's
clock or by this program's, is not sent again.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from glint.batch_client import AsyncBatch, Batch
from glint.core.errors import GlintError, one_line
from glint.serving.answers import Classification, Served
from glint.settings import read_settings

Image = bytes | str | Path
"""Encoded bytes, a file, or the az:// address of a blob that the server reads itself."""
Answer = TypeVar("Answer", bound=BaseModel)

NOTHING_DONE = frozenset({429, 503})
"""Answers of a server that has not begun with the request."""
BROKEN_OFF = frozenset({502, 504})
TIMED_OUT = 408
UNCONNECTED = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
TOO_LATE = (httpx.ReadTimeout, httpx.WriteTimeout)
MISUSED = (httpx.UnsupportedProtocol, httpx.LocalProtocolError)
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 10.0
LONGEST_WAIT_S = 120
"""A server that asks for more is not waited for."""
Outcome = httpx.Response | httpx.TransportError
MAX_CONNECTIONS = 64


class RefusedError(GlintError):
    """The server answered 4xx: `status` is HTTP's, `reason` for a program, the message for a person."""

    def __init__(self, message: str, status: int, reason: str, request_id: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.request_id = request_id


class UnavailableError(Exception):
    """No answer after all attempts, or the server's own mistake; `status` is None where nothing answered at all."""

    def __init__(self, message: str, status: int | None = None, request_id: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.request_id = request_id


class StrangerError(GlintError):
    """What answers at that address is no glint."""


class Client:
    """Talks to the glint at `url`; safe to use from several threads.

    `key` is an API key or an Entra ID token, by default the one of GLINT_API_KEY. A request has `timeout_s` for each of
    at most `max_attempts`. Methods raise RefusedError for what is the caller's to mend, StrangerError where no glint
    answers, UnavailableError otherwise.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        key: str | None = None,
        *,
        timeout_s: float = 60,
        max_attempts: int = 5,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._max_attempts = max_attempts
        self._http = httpx.Client(**_options(url, key, timeout_s), transport=transport)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def classify(
        self,
        image: Image,
        *,
        model: str | None = None,
        top_k: int | None = None,
        explain: bool = False,
        sticky: str | None = None,
    ) -> Classification:
        """The answer for one image, by the server's first model unless `model` is NAME, NAME@ALIAS or NAME/VERSION.

        What has the same `sticky`, such as a line, falls to the same side of a canary; by default the image decides.
        """
        question = _question(image, model, top_k, explain, sticky)
        return _parsed(self.request("POST", "/v1/classify", late=False, **question), Classification)

    def model(self, name: str | None = None) -> Served:
        """What is served under this name."""
        return _parsed(self.request("GET", "/v1/model", params=_given(model=name)), Served)

    @property
    def batch(self) -> Batch:
        """Batch endpoints and their jobs."""
        return Batch(self.request)

    def request(
        self, method: str, path: str, *, idempotent: bool = True, late: bool = True, **options: Any
    ) -> httpx.Response:
        """A successful response to any request; `options` are httpx's.

        What is not idempotent is tried again only where the server cannot have begun with it, and what took longer than
        `timeout_s` only if `late` says so as well.
        """
        outcomes = [self._attempt(method, path, options)]
        while (pause_s := _pause_s(outcomes, idempotent, late, self._max_attempts)) is not None:
            time.sleep(pause_s)
            outcomes.append(self._attempt(method, path, options))
        return _successful(outcomes[-1])

    def _attempt(self, method: str, path: str, options: Mapping[str, Any]) -> Outcome:
        try:
            return self._http.request(method, path, **options)
        except httpx.TransportError as error:
            return error


class AsyncClient:
    """Client for asyncio, with the same methods."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        key: str | None = None,
        *,
        timeout_s: float = 60,
        max_attempts: int = 5,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._max_attempts = max_attempts
        self._http = httpx.AsyncClient(**_options(url, key, timeout_s), transport=transport)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def classify(
        self,
        image: Image,
        *,
        model: str | None = None,
        top_k: int | None = None,
        explain: bool = False,
        sticky: str | None = None,
    ) -> Classification:
        """As Client.classify."""
        question = _question(image, model, top_k, explain, sticky)
        return _parsed(await self.request("POST", "/v1/classify", late=False, **question), Classification)

    async def model(self, name: str | None = None) -> Served:
        """What is served under this name."""
        return _parsed(await self.request("GET", "/v1/model", params=_given(model=name)), Served)

    @property
    def batch(self) -> AsyncBatch:
        """Batch endpoints and their jobs."""
        return AsyncBatch(self.request)

    async def request(
        self, method: str, path: str, *, idempotent: bool = True, late: bool = True, **options: Any
    ) -> httpx.Response:
        """As Client.request."""
        outcomes = [await self._attempt(method, path, options)]
        while (pause_s := _pause_s(outcomes, idempotent, late, self._max_attempts)) is not None:
            await asyncio.sleep(pause_s)
            outcomes.append(await self._attempt(method, path, options))
        return _successful(outcomes[-1])

    async def _attempt(self, method: str, path: str, options: Mapping[str, Any]) -> Outcome:
        try:
            return await self._http.request(method, path, **options)
        except httpx.TransportError as error:
            return error


def _options(url: str, key: str | None, timeout_s: float) -> dict[str, Any]:
    try:
        scheme = httpx.URL(url).scheme
    except httpx.InvalidURL:
        scheme = ""
    if scheme not in ("http", "https"):
        raise GlintError(f"url {url!r} must be an address that begins with http:// or https://")
    if key is None and (configured := read_settings().api_key):
        key = configured.get_secret_value()
    if key and not (key.isascii() and key.isprintable()):
        raise GlintError("key, or GLINT_API_KEY, must be printable ASCII, without a line's end: it goes into a header")
    return {
        "base_url": url,
        "headers": {"authorization": f"Bearer {key}"} if key else {},
        "timeout": timeout_s,
        "limits": httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS),
    }


def _question(image: Image, model: str | None, top_k: int | None, explain: bool, sticky: str | None) -> dict[str, Any]:
    """What httpx sends for an image."""
    params = _given(model=model, top_k=top_k, explain="true" if explain else None, sticky=sticky)
    if isinstance(image, str) and image.startswith("az://"):
        return {"params": params, "json": {"uri": image}}
    data = image if isinstance(image, bytes) else _read(Path(image))
    return {"params": params, "content": data, "headers": {"content-type": "application/octet-stream"}}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise GlintError(f"{path} cannot be read: {error.strerror}") from None


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _parsed(response: httpx.Response, kind: type[Answer]) -> Answer:
    try:
        return kind.model_validate_json(response.content)
    except ValidationError:
        sort = response.headers.get("content-type", "no content type")
        wanted = "name the address of a running `glint serve`"
        raise StrangerError(f"what answers at {response.url} is no glint, by its {sort[:100]}: {wanted}") from None


def _pause_s(outcomes: Sequence[Outcome], idempotent: bool, late: bool, max_attempts: int) -> float | None:
    """Seconds until the next attempt, exponential with full jitter beyond what the server asks; None for no more."""
    *before, latest = outcomes
    asked_s = _asked_s(latest)
    again = _undone(latest) or (idempotent and _broken_off(latest) and not any(map(_broken_off, before)))
    again = again and (late or not isinstance(latest, TOO_LATE))
    if not again or len(outcomes) >= max_attempts or asked_s > LONGEST_WAIT_S:
        return None
    return asked_s + random.uniform(0, min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** len(outcomes)))


def _undone(outcome: Outcome) -> bool:
    """Whether the server has not begun with the request."""
    if isinstance(outcome, httpx.Response):
        return outcome.status_code in NOTHING_DONE
    return isinstance(outcome, UNCONNECTED)


def _broken_off(outcome: Outcome) -> bool:
    """Whether the server may have begun, and did not end."""
    if isinstance(outcome, httpx.Response):
        return outcome.status_code in BROKEN_OFF
    return not isinstance(outcome, (*UNCONNECTED, *MISUSED))


def _asked_s(outcome: Outcome) -> int:
    """What the server asks to be left alone for."""
    asked = outcome.headers.get("retry-after", "") if isinstance(outcome, httpx.Response) else ""
    return int(asked) if asked.isdecimal() else 0


def _successful(outcome: Outcome) -> httpx.Response:
    if not isinstance(outcome, httpx.Response):
        broken = "the connection broke off" if _broken_off(outcome) else "nothing answers"
        kind = "no answer in time" if isinstance(outcome, TOO_LATE) else broken
        raise UnavailableError(f"{kind}: {one_line(outcome)}") from outcome
    if outcome.is_success:
        return outcome
    status, request_id = outcome.status_code, outcome.headers.get("x-request-id")
    detail, reason = _problem(outcome)
    if status < 500 and status not in (TIMED_OUT, *NOTHING_DONE):
        raise RefusedError(detail, status, reason, request_id)
    if (asked_s := _asked_s(outcome)) > LONGEST_WAIT_S:
        detail = f"{detail} (it asks to wait for {asked_s} s; no more than {LONGEST_WAIT_S} s are waited)"
    raise UnavailableError(f"{status}: {detail}", status, request_id)


def _problem(response: httpx.Response) -> tuple[str, str]:
    """The detail and reason of a problem+json, or whatever was answered in its stead."""
    with suppress(ValueError, KeyError, TypeError):  # another server's may have neither, or be no JSON
        problem = response.json()
        return str(problem["detail"]), str(problem.get("reason", "unknown"))
    return " ".join(response.text[:200].split()) or response.reason_phrase, "unknown"
