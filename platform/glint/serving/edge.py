"""What stands before Ray Serve reads a request, in its proxies and wherever else it listens.

Serve calls `middlewares` because RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH names it. There a request loses the headers
by which a caller could switch Serve's time limit off and those that Serve cannot read. What Serve answers by itself,
such as 503 for a full queue, becomes a problem like all others. Where the replica that had a request has died Serve
answers nothing at all; that is 502 here, on which clients try again.
"""

from __future__ import annotations

import os
from uuid import uuid4

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from glint.serving.problems import MEDIA_TYPE, problem_document
from glint.serving.throttle import Throttle

SWITCHES = frozenset({b"x-request-timeout-seconds", b"x-request-disconnect-disabled"})
SERVES_OWN = {
    404: ("not_found", "no application is served here"),
    408: ("timed_out", "the request took longer than the server allows"),
    429: ("overloaded", "too many requests wait already; try again after Retry-After seconds"),
    500: ("internal_error", "something went wrong inside the server; its log says what"),
    503: ("overloaded", "too many requests wait already, or no replica is ready; try again after Retry-After seconds"),
}
STOPPED = (503, "not_ready", "no model is served here yet, or any more; try again after Retry-After seconds")
"""In place of Serve's 404 to who wants an image classified: a server that stops takes its application away first. One
that was started without a model says so too: nothing here knows whether one is to come."""
GONE = (502, "replica_gone", "the process that had this request has ended; try again")
RETRY_AFTER_S = 1
UNREACHABLE = "identity_unreachable"
MODELS_DIFFER = "models_differ"
"""Reasons of a 503 that say nothing of the load: by the first whoever makes up tokens could shut others out."""


class Edge:
    """Strips SWITCHES from requests, and turns Serve's own plain answers into problems.

    While replicas refuse most images, it refuses a share of them itself: that takes a tenth of what a refusal behind
    Serve takes, on the cores that should answer.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._throttle = Throttle()
        self._traces = bool(os.environ.get("RAY_SERVE_TRACING_EXPORTER_IMPORT_PATH"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if scope["type"] != "http" or scope["path"].startswith("/-/"):
            await self._app(scope, receive, send)
            return
        # In place, for Serve's proxy keeps the list that it was given.
        scope["headers"] = [header for header in scope["headers"] if _goes_on(*header)]
        if self._traces and not any(name.lower() == b"traceparent" for name, _ in scope["headers"]):
            from glint.serving.tracing import traceparent  # with OpenTelemetry, which others do without

            scope["headers"].append((b"traceparent", traceparent()))
        wanted = _is_for_a_model(scope)
        if wanted and self._throttle.refuses():
            await _refuse(scope, send, 503, *SERVES_OWN[503])
            return
        answer = Answer(send, STOPPED if wanted else None)
        await self._app(scope, receive, self._watched(answer) if wanted else answer)
        if not answer.started:
            await _refuse(scope, send, *GONE)

    def _watched(self, send: Send) -> Send:
        """`send`, telling the throttle of each answer, and whether it is a refusal for the load."""
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif status:
                body = message.get("body", b"")
                if status != 503 or not any(reason.encode() in body for reason in (UNREACHABLE, MODELS_DIFFER)):
                    self._throttle.ended(status != 503)
                status = 0
            await send(message)

        return sending


def middlewares() -> list[Middleware]:
    """Called by Serve."""
    return [Middleware(Edge)]


class Answer:
    """Sends on what is answered, but for the plain text of an error, in whose place a problem goes.

    `absent` is that in place of Serve's own 404, by default what SERVES_OWN has.
    """

    def __init__(self, send: Send, absent: tuple[int, str, str] | None = None) -> None:
        self._send, self._absent = send, absent
        self.started = self._replaced = False

    async def __call__(self, message: Message) -> None:
        """ASGI's `send`."""
        self.started = True
        if message["type"] == "http.response.start" and _is_serves_own(message):
            self._replaced = True
            status = message["status"]
            problem = self._absent if self._absent and status == 404 else (status, *SERVES_OWN[status])
            for part in _messages(message, *problem):
                await self._send(part)
        elif not self._replaced:
            await self._send(message)


async def _refuse(scope: Scope, send: Send, status: int, reason: str, detail: str) -> None:
    """Answer in Serve's place, as it would under the caller's id, the one that it has given already, or a new one."""
    request_id = dict(scope["headers"]).get(b"x-request-id") or str(uuid4()).encode()
    start = {"type": "http.response.start", "headers": [(b"x-request-id", request_id)]}
    for message in _messages(start, status, reason, detail):
        await send(message)


def _goes_on(name: bytes, value: bytes) -> bool:
    """Not so what is no ASCII: nothing here reads it, and Serve ends a request with such an id by a bare 500."""
    return name.lower() not in SWITCHES and name.isascii() and value.isascii()


def _is_for_a_model(scope: Scope) -> bool:
    return bool(scope["method"] == "POST" and scope["path"].endswith(("/classify", "/infer")))


def _is_serves_own(start: Message) -> bool:
    kind = dict(start["headers"]).get(b"content-type", b"text/plain")
    return start["status"] in SERVES_OWN and kind.startswith(b"text/plain")


def _messages(start: Message, status: int, reason: str, detail: str) -> tuple[Message, Message]:
    """A problem as an answer, with the headers that `start` has beside those of its body."""
    body = problem_document(status, reason, detail).encode()
    kept = [(name, value) for name, value in start["headers"] if name not in (b"content-type", b"content-length")]
    if status in (429, 502, 503) and not any(name == b"retry-after" for name, _ in kept):
        kept.append((b"retry-after", b"%d" % RETRY_AFTER_S))
    headers = [*kept, (b"content-type", MEDIA_TYPE.encode()), (b"content-length", b"%d" % len(body))]
    return {**start, "status": status, "headers": headers}, {"type": "http.response.body", "body": body}
