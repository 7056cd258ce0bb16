"""Who may ask, and how often: an ASGI middleware before an application, with one line in the access log a request."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, perf_counter

import jwt
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from glint.serving.batch_answers import PREFIX as PREFIX_OF_BATCH
from glint.serving.edge import UNREACHABLE
from glint.serving.entra import EntraSettings, EntraTokens
from glint.serving.held import Held
from glint.serving.keys import PREFIX, Key, Keys
from glint.serving.problems import ProblemError, problem_response, too_many_bytes

OPEN_PATHS = frozenset({"/", "/openapi.json", f"{PREFIX_OF_BATCH}/openapi.json", "/v2/health/live", "/v2/health/ready"})
"""What tells nothing of the models, for probes and for those who find the door."""
LONGEST_PATH = LONGEST_ID = 200
"""Letters of them in the access log."""
ACCESS = logging.getLogger("glint.access")


@dataclass(frozen=True)
class Access:
    """Who is let in: holders of the keys in a file or of tokens of Entra ID; anybody where both are None."""

    keys: Path | None = None
    entra: EntraSettings | None = None
    log: Path | None = None
    """a file for the access log, one JSON object a line; None = the logger glint.access alone"""


class Guard:
    """Lets requests through to `app` that bear a key of `scope`; the rest is answered 401, 403 or 429.

    `scopes` are those of paths that need another one; `num_replicas` tells how many share the rate of a key. A request
    whose body is more than `held` takes is answered 503, and one of more than `max_bytes` 413.
    """

    def __init__(
        self,
        app: ASGIApp,
        access: Access,
        scope: str,
        scopes: Mapping[str, str] | None = None,
        num_replicas: Callable[[], int] = lambda: 1,
        held: Held | None = None,
        max_bytes: int | None = None,
    ) -> None:
        self._app, self._num_replicas, self._held = app, num_replicas, held or Held()
        self._max_bytes = max_bytes
        self._scope, self._scopes = scope, scopes or {}
        self._keys = Keys(access.keys) if access.keys else None
        self._entra = EntraTokens(access.entra) if access.entra else None
        self._buckets: dict[str, Bucket] = {}
        if access.log:
            log_to(access.log)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status, caller, brought = perf_counter(), 0, None, 0

        async def receiving() -> Message:
            nonlocal brought
            message = await receive()
            self._held.take(size := len(message.get("body", b"")), brought)
            brought += size
            if self._max_bytes is not None and brought > self._max_bytes:
                raise too_many_bytes(self._max_bytes, brought)
            return message

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            try:
                if key := await self._identify(scope):
                    caller = key.name  # before it may be refused: who was is logged
                    self._admit(key, scope["path"])
            except ProblemError as problem:
                await problem_response(Request(scope), problem)(scope, receive, sending)
                return
            await self._app(scope, receiving, sending)
        finally:
            self._held.give_back(brought)
            _log(scope, caller, status, 1000 * (perf_counter() - began))

    def _admit(self, key: Key, path: str) -> None:
        """Raise ProblemError for who may not ask for that, or not so often."""
        wanted = self._scopes.get(path.rstrip("\n"), self._scope)  # to routes a line's end is no difference
        if wanted not in key.scopes:
            raise ProblemError(403, "wrong_scope", f"{key.name} is for {_listed(key.scopes)}; this needs {wanted}")
        if key.requests_per_s:
            rate = key.requests_per_s / max(1, self._num_replicas())
            self._buckets.setdefault(key.name, Bucket()).take(rate, monotonic())

    async def _identify(self, scope: Scope) -> Key | None:
        """Who asks; None where anybody may."""
        if scope["path"] in OPEN_PATHS or not (self._keys or self._entra):
            return None
        token = _token(Headers(scope=scope))
        if not token:
            raise _unauthorised("send a key of `glint keys add` as Authorization: Bearer KEY, or as X-API-Key")
        if self._keys and (key := self._keys.find(token)):
            return key
        if self._entra and not token.startswith(PREFIX):
            try:
                found = await self._entra.find(token)
            except jwt.PyJWKClientConnectionError:
                raise ProblemError(
                    503, UNREACHABLE, "the keys of Entra ID cannot be fetched", {"Retry-After": "5"}
                ) from None
            if found:
                return found
        raise _unauthorised("this key is unknown here: removed, expired or mistyped")


class Bucket:
    """A token bucket that holds what one second brings, and at least one request."""

    def __init__(self) -> None:
        self._level: float | None = None
        self._at = 0.0

    def take(self, requests_per_s: float, now_s: float) -> None:
        """Take one; raises ProblemError 429 when there is none, saying when there will be."""
        size = max(1.0, requests_per_s)
        level = size if self._level is None else min(size, self._level + (now_s - self._at) * requests_per_s)
        self._level, self._at = level, now_s
        if level < 1:
            wait_s = math.ceil((1 - level) / requests_per_s)
            message = f"this key asks more often than it may; try again after {wait_s} s"
            raise ProblemError(429, "rate_limit", message, {"Retry-After": str(wait_s)})
        self._level = level - 1


def log_to(path: Path) -> None:
    """Append the access log of this process to a file; lines of several processes do not mix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not any(getattr(handler, "baseFilename", None) == str(path.absolute()) for handler in ACCESS.handlers):
        handler = logging.FileHandler(path, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(message)s"))
        ACCESS.addHandler(handler)
    ACCESS.setLevel(logging.INFO)
    ACCESS.propagate = False


def _token(headers: Headers) -> str:
    kind, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else headers.get("x-api-key", "")


def _unauthorised(message: str) -> ProblemError:
    return ProblemError(401, "unauthorised", message, {"WWW-Authenticate": "Bearer"})


def _listed(scopes: Sequence[str]) -> str:
    return " and ".join(scopes) or "nothing"


def _log(scope: Scope, caller: str | None, status: int, duration_ms: float) -> None:
    """One JSON line; without the query, the headers and the body, which may hold what is nobody's business."""
    if not ACCESS.isEnabledFor(logging.INFO):
        return
    line = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "request_id": Headers(scope=scope).get("x-request-id", "")[:LONGEST_ID] or None,
        "client": scope["client"][0] if scope.get("client") else None,
        "caller": caller,
        "method": scope["method"],
        "path": scope["path"][:LONGEST_PATH],
        "status": status or 499,
        "ms": round(duration_ms, 1),
    }
    ACCESS.info(json.dumps(line))
