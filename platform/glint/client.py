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
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from glint.attempts import Outcome, RefusedError, UnavailableError, pause_s, successful
from glint.batch_client import AsyncBatch, Batch
from glint.core.errors import GlintError
from glint.serving.answers import Classification, Served
from glint.settings import read_settings

__all__ = ["AsyncClient", "Client", "RefusedError", "StrangerError", "UnavailableError"]

Image = bytes | str | Path
"""Encoded bytes, a file, or the az:// address of a blob that the server reads itself."""
Answer = TypeVar("Answer", bound=BaseModel)
MAX_CONNECTIONS = 64


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
        while (wait_s := pause_s(outcomes, idempotent, late, self._max_attempts)) is not None:
            time.sleep(wait_s)
            outcomes.append(self._attempt(method, path, options))
        return successful(outcomes[-1])

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
        while (wait_s := pause_s(outcomes, idempotent, late, self._max_attempts)) is not None:
            await asyncio.sleep(wait_s)
            outcomes.append(await self._attempt(method, path, options))
        return successful(outcomes[-1])

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
