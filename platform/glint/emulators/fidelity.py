"""A proxy that makes the Cosmos DB emulator answer as the service does, for people and tests.

python -m glint.emulators.fidelity --upstream http://127.0.0.1:PORT [--port 0] [--key KEY]

It then prints its own address as the first line and ends when its stdin does. Endpoint discovery works through it, a
wrong key is refused, documents and batches have the service's limits, databases tell their throughput, and every
answer has a request charge.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import json
import sys
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from aiohttp import web

from glint.emulators.faults import Asked, Fault, FaultHook
from glint.emulators.proxy import Proxy, retry_headers
from glint.emulators.servers import COSMOS_KEY, Child

MAX_BYTES = 2 * 1024 * 1024
"""Of a document and of a batch."""
WRITES = frozenset({"create", "upsert", "replace", "patch", "delete", "batch"})

_BY_METHOD = {"POST": "create", "PUT": "replace", "PATCH": "patch", "DELETE": "delete", "GET": "read"}


class CosmosProxy(Proxy):
    """In front of a `CosmosEmulator`; `key` is what requests have to be signed with, `endpoint` where they go."""

    def __init__(self, upstream: str, port: int = 0, key: str = COSMOS_KEY, fault: FaultHook | None = None) -> None:
        super().__init__(upstream, port, fault)
        self.key = key
        self._offers: dict[str, dict[str, Any]] = {}

    @property
    def endpoint(self) -> str:
        """What a CosmosClient is given."""
        return self.url

    def operation(self, request: web.BaseRequest) -> str:
        """The kind of request; see `Asked`."""
        parts = request.path.strip("/").split("/")
        if "docs" not in parts[4:5]:
            return "metadata"
        headers = request.headers
        if _true(headers.get("x-ms-documentdb-isquery")) or "query+json" in headers.get("Content-Type", ""):
            return "query"
        if _true(headers.get("x-ms-cosmos-is-batch-request")):
            return "batch"
        if _true(headers.get("x-ms-documentdb-is-upsert")):
            return "upsert"
        return _BY_METHOD.get(request.method, "metadata")

    def refusal(self, asked: Asked) -> web.Response | None:
        """401 for a wrong signature, 413 for what is too large."""
        if not _signed(asked, self.key):
            return _error(401, "Unauthorized", "The input authorization token can't serve the request.")
        if asked.operation in WRITES and len(asked.body) > MAX_BYTES:
            return _error(413, "RequestEntityTooLarge", "Request size is too large")
        return None

    def failure(self, asked: Asked, fault: Fault) -> web.Response:
        """As the service words it; one operation of a batch may fail instead of the whole request."""
        if asked.operation == "batch" and fault.operation is not None:
            results = [{"statusCode": 424, "requestCharge": 0.0} for _ in json.loads(asked.body)]
            results[fault.operation]["statusCode"] = fault.code
            response = web.json_response(results, status=207)
        else:
            response = _error(fault.code, str(fault.code), "A fault of the test's.")
        response.headers.update({"x-ms-request-charge": "0", **retry_headers(fault)})
        return response

    def answered(self, asked: Asked, response: web.Response) -> web.Response:
        """With the request's charge; the account's regions lead back to this proxy, which knows their throughput."""
        path = urlsplit(asked.path).path
        if path == "/offers":
            wanted = {parameter["value"] for parameter in json.loads(asked.body)["parameters"]}
            found = [offer for link, offer in self._offers.items() if link in wanted]
            response = web.json_response({"_rid": "", "Offers": found, "_count": len(found)})
        if path == "/" and response.status == 200:
            response.body = _relocated(response, f"http://{asked.headers.get('Host', '')}/")
            response.headers["Content-Length"] = str(len(response.body))
        if asked.method == "POST" and response.status == 201 and (content := _throughput(asked)):
            link = json.loads(response.body if isinstance(response.body, bytes) else b"{}")["_self"]
            self._offers[link] = {"resource": link, "content": content}
        response.headers["x-ms-request-charge"] = f"{charge(asked, response):.2f}"
        return response


class CosmosProxyProcess(Child):
    """The same as a process of its own, without faults, so that its work is not counted as its client's."""

    def __init__(self, upstream: str, port: int = 0, key: str = COSMOS_KEY) -> None:
        self.key = key
        options = ["--upstream", upstream, "--port", str(port), "--key", key]
        super().__init__("the Cosmos DB proxy", [sys.executable, "-m", __name__, *options], port)

    @property
    def endpoint(self) -> str:
        """Where clients go."""
        return self.url


def charge(asked: Asked, response: web.Response) -> float:
    """Request units, near what the service documents: a read of 1 KB takes 1, a write of 1 KB 4.95, one of 4 KB 6.66.

    A batch costs what its operations do, a query 2.8 and 0.05 for each document in the answer.
    """
    size_bytes = len(response.body) if isinstance(response.body, bytes) else 0
    if asked.operation == "query":
        return 2.8 + 0.05 * int(response.headers.get("x-ms-item-count", 0))
    if asked.operation == "batch" and response.status == 200:
        return _write_charge(len(asked.body), len(json.loads(asked.body)))
    if asked.operation in WRITES and asked.operation != "batch" and response.status < 400:
        return _write_charge(len(asked.body), 1)
    return 1.0 + 0.09 * max(0.0, size_bytes / 1024 - 1)


def _write_charge(size_bytes: int, num_documents: int) -> float:
    return 4.95 * num_documents + 0.57 * max(0.0, size_bytes / 1024 - num_documents)


def _signed(asked: Asked, key: str) -> bool:
    """Whether the authorization header is the key's: HMAC-SHA256 of method, resource type, resource and date."""
    token = parse_qs(unquote(asked.headers.get("Authorization", "")).replace("+", "%2B"))
    given = token.get("sig", [""])[0]
    parts = [unquote(part) for part in urlsplit(asked.path).path.strip("/").split("/") if part]
    # A path is type/id/type/id…: what is asked is its last type, and the resource is all of it up to an id.
    kind = parts[-1] if len(parts) % 2 else (parts[-2] if parts else "")
    resource = "/".join(parts[:-1] if len(parts) % 2 else parts)
    date = asked.headers.get("x-ms-date", "")
    return hmac.compare_digest(_signature(key, asked.method, kind, resource, date), given)


def _signature(key: str, method: str, kind: str, resource: str, date: str) -> str:
    text = f"{method.lower()}\n{kind.lower()}\n{resource}\n{date.lower()}\n\n"
    return base64.b64encode(hmac.digest(base64.b64decode(key), text.encode(), hashlib.sha256)).decode()


def _throughput(asked: Asked) -> dict[str, Any] | None:
    """What a database or container is made with, as the service's offers have it."""
    if fixed := asked.headers.get("x-ms-offer-throughput"):
        return {"offerThroughput": int(fixed)}
    if scaled := asked.headers.get("x-ms-cosmos-offer-autopilot-settings"):
        most = json.loads(scaled)["maxThroughput"]
        return {"offerThroughput": most // 10, "offerAutopilotSettings": {"maxThroughput": most}}
    return None


def _relocated(response: web.Response, url: str) -> bytes:
    account = json.loads(response.body if isinstance(response.body, bytes) else b"{}")
    for location in (*account["writableLocations"], *account["readableLocations"]):
        location["databaseAccountEndpoint"] = url
    return json.dumps(account).encode()


def _error(status: int, code: str, message: str) -> web.Response:
    return web.json_response({"code": code, "message": message}, status=status)


def _true(value: str | None) -> bool:
    return (value or "").lower() == "true"


def main() -> None:
    """Serve until stdin ends."""
    parser = argparse.ArgumentParser(prog="python -m glint.emulators.fidelity", description=__doc__)
    parser.add_argument("--upstream", required=True, help="address of the emulator")
    parser.add_argument("--port", type=int, default=0, help="0 takes any free one")
    parser.add_argument("--key", default=COSMOS_KEY, help="what requests have to be signed with")
    options = parser.parse_args()
    with CosmosProxy(options.upstream, options.port, options.key) as proxy:
        print(proxy.url, flush=True)
        with suppress(KeyboardInterrupt):
            sys.stdin.read()


if __name__ == "__main__":
    main()
