"""A reverse proxy in a thread of its own that passes requests on byte for byte, and can go wrong on purpose."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine, Iterator
from io import BytesIO
from typing import Any, Self, TypeVar

from aiohttp import ClientError, ClientResponse, ClientSession, DummyCookieJar, TCPConnector, web
from multidict import CIMultiDict
from yarl import URL

from glint.emulators.faults import Asked, Fault, FaultHook
from glint.emulators.servers import LOOPBACK, check_port

T = TypeVar("T")

HOP_BY_HOP = ("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade")
"""Headers that belong to one connection, not to the request (RFC 9110, 7.6.1)."""
LARGE_BYTES = 1 << 20
"""More is sent in pieces, lest it hold up the loop."""

_ADDED_BY_AIOHTTP = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


class Broken(Exception):  # noqa: N818 - it is no error but an order
    """The connection is to break here."""


class Proxy:
    """In front of `upstream`, on `port` of 127.0.0.1 (0 takes a free one): a context manager, or start() and stop().

    Once started, `url` is its own. `fault` may be set at any time; None lets every request pass.
    """

    def __init__(self, upstream: str, port: int = 0, fault: FaultHook | None = None) -> None:
        self.fault = fault
        self.url = ""
        self._upstream = upstream.rstrip("/")
        self._port = port

    def start(self) -> None:
        """Listen; raises GlintError when the port is taken."""
        if self._port:
            check_port(self._port, "port")
        # Bound and never listening: while the proxy is paused, it refuses connections and keeps the port.
        self._placeholder = _socket(self._port)
        self._port = self._placeholder.getsockname()[1]
        self.url = f"http://{LOOPBACK}:{self._port}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="glint-proxy", daemon=True)
        self._thread.start()
        self._call(self._open())

    def stop(self) -> None:
        """Break what is under way and end."""
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._placeholder.close()

    def pause(self) -> None:
        """An outage: break all connections and refuse new ones, until resume(). What is stored stays."""
        self._call(self._shut())

    def resume(self) -> None:
        """End the outage, at the same address."""
        if not self._listener.is_serving():
            self._call(self._listen())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def operation(self, request: web.BaseRequest) -> str:
        """What the request does, as `Asked.operation` names it."""
        return "list" if request.query.get("comp") == "list" else request.method.lower()

    def refusal(self, asked: Asked) -> web.Response | None:
        """An answer given here, before anything else; None passes the request on."""
        return None

    def failure(self, asked: Asked, fault: Fault) -> web.Response:
        """The answer of a fault of kind status."""
        xml = f"<?xml version='1.0' encoding='utf-8'?><Error><Code>{fault.code}</Code><Message>fault</Message></Error>"
        headers = {"x-ms-error-code": "ServerBusy" if fault.code == 503 else "InternalError", **retry_headers(fault)}
        return web.Response(status=fault.code, text=xml, content_type="application/xml", headers=headers)

    def answered(self, asked: Asked, response: web.Response) -> web.Response:
        """The answer of the server behind, possibly changed."""
        return response

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _open(self) -> None:
        connector = TCPConnector(limit=0, keepalive_timeout=30)
        self._client = ClientSession(
            connector=connector, cookie_jar=DummyCookieJar(), auto_decompress=False, trust_env=False
        )
        self._server = web.Server(self._answer, handler_cancellation=False, access_log=None)
        await self._listen()

    async def _listen(self) -> None:
        self._listener = await self._loop.create_server(self._server, sock=_socket(self._port), backlog=1024)

    async def _shut(self) -> None:
        self._listener.close()
        for transport in self._transports():
            transport.abort()
        await asyncio.sleep(0)

    async def _close(self) -> None:
        await self._shut()
        await self._server.shutdown(timeout=1)
        await self._client.close()

    def _transports(self) -> Iterator[asyncio.Transport]:
        for connection in self._server.connections:
            if isinstance(connection.transport, asyncio.Transport):
                yield connection.transport

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.content.read()
        asked = Asked(self.operation(request), request.method, request.raw_path, request.headers, body)
        if refusal := self.refusal(asked):
            return refusal
        fault = await self.fault(asked) if self.fault else None
        try:
            return await self._faulty(request, asked, fault) if fault else await self._pass(asked)
        except Broken:
            return _break(request)

    async def _faulty(self, request: web.BaseRequest, asked: Asked, fault: Fault) -> web.StreamResponse:
        if fault.kind == "status":
            return self.failure(asked, fault)
        if fault.kind == "reset":
            raise Broken
        if fault.kind == "delay":
            await asyncio.sleep(fault.seconds)
        response = await self._pass(asked)
        if fault.kind == "lost":
            raise Broken
        return await _truncated(request, response) if fault.kind == "truncate" else response

    async def _pass(self, asked: Asked) -> web.Response:
        url = URL(f"{self._upstream}{asked.path}", encoded=True)
        headers = CIMultiDict((name, value) for name, value in asked.headers.items() if name.lower() not in HOP_BY_HOP)
        if asked.body:
            headers["Content-Length"] = str(len(asked.body))
        try:
            async with self._client.request(
                asked.method,
                url,
                headers=headers,
                data=BytesIO(asked.body) if len(asked.body) > LARGE_BYTES else asked.body or None,
                allow_redirects=False,
                skip_auto_headers=_ADDED_BY_AIOHTTP,
            ) as response:
                return self.answered(asked, await _copied(response))
        except ClientError:
            raise Broken from None


def retry_headers(fault: Fault) -> dict[str, str]:
    """The headers of a fault that say when to come back, and its substatus."""
    found = {"x-ms-retry-after-ms": fault.retry_after_ms, "x-ms-substatus": fault.substatus}
    return {name: str(value) for name, value in found.items() if value is not None}


async def _copied(response: ClientResponse) -> web.Response:
    headers = CIMultiDict((name, value) for name, value in response.headers.items() if name.lower() not in HOP_BY_HOP)
    return web.Response(status=response.status, reason=response.reason, headers=headers, body=await response.read())


async def _truncated(request: web.BaseRequest, response: web.Response) -> web.StreamResponse:
    body = response.body if isinstance(response.body, bytes) else b""
    partial = web.StreamResponse(status=response.status, reason=response.reason, headers=response.headers)
    partial.content_length = len(body)
    await partial.prepare(request)
    await partial.write(body[: len(body) // 2])
    if request.transport:
        request.transport.close()  # what is written still arrives, unlike with abort()
    return partial


def _break(request: web.BaseRequest) -> web.Response:
    """Reset the connection: without lingering the kernel sends RST, not FIN."""
    if request.transport:
        with contextlib.suppress(OSError):
            linger = struct.pack("ii", 1, 0)
            request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        request.transport.abort()
    return web.Response()


def _socket(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind((LOOPBACK, port))
    return sock
