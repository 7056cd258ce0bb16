import re
from collections import Counter
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from glint.serving.edge import UNREACHABLE, middlewares


def behind_the_edge(answer: Callable[[Request], Response]) -> TestClient:
    app = Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST"])])
    (edge,) = middlewares()
    return TestClient(edge.cls(app))


def test_headers_that_switch_serves_time_limit_off_do_not_pass() -> None:
    client = behind_the_edge(lambda request: JSONResponse(dict(request.headers)))
    switches = {"X-Request-Timeout-Seconds": "0", "x-request-disconnect-disabled": "?1"}
    seen = client.get("/", headers=switches | {"x-request-id": "line-4"}).json()
    assert seen["x-request-id"] == "line-4"
    assert not {name.lower() for name in switches} & set(seen)


def test_headers_that_serve_cannot_read_do_not_pass() -> None:
    client = behind_the_edge(lambda request: JSONResponse(sorted(request.headers)))
    seen = client.get("/", headers=[(b"x-request-id", b"a\xe9b"), (b"x-operator", b"J\xc3\xb6rg"), (b"x-line", b"4")])
    assert {"x-request-id", "x-operator", "x-line"} & set(seen.json()) == {"x-line"}


def test_a_request_has_one_trace_of_its_callers_or_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        behind_the_edge(lambda request: JSONResponse(sorted(request.headers))).get("/").json().count("traceparent") == 0
    )
    monkeypatch.setenv("RAY_SERVE_TRACING_EXPORTER_IMPORT_PATH", "glint.serving.tracing.span_processors")
    monkeypatch.setenv("RAY_SERVE_TRACING_SAMPLING_RATIO", "0.5")
    client = behind_the_edge(lambda request: JSONResponse(request.headers.getlist("traceparent")))
    theirs = f"00-{'1' * 32}-{'2' * 16}-01"
    assert client.get("/", headers={"traceparent": theirs}).json() == [theirs]
    made = [client.get("/").json() for _ in range(100)]
    assert all(re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]", one) for (one,) in made)
    assert len({one for (one,) in made}) == 100
    assert 20 < sum(one.endswith("1") for (one,) in made) < 80


@pytest.mark.parametrize("status", [404, 408, 429, 500, 503])
def test_what_serve_says_by_itself_becomes_a_problem(status: int) -> None:
    client = behind_the_edge(lambda request: PlainTextResponse("Serve's own words", status))
    response = client.get("/")
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.status_code, response.json()["status"]) == (status, status)
    assert ("retry-after" in response.headers) == (status in (429, 503))


def test_who_wants_an_image_classified_while_the_server_stops_may_try_again() -> None:
    client = behind_the_edge(lambda request: PlainTextResponse("Path not found", 404))
    response = client.post("/v1/classify")
    assert (response.status_code, response.json()["reason"], response.headers["retry-after"]) == (503, "not_ready", "1")
    assert client.get("/v1/classify").status_code == client.post("/elsewhere").status_code == 404
    assert {client.post("/v1/classify").json()["reason"] for _ in range(50)} == {"not_ready"}, "no flood"


def test_answers_of_the_application_and_serves_health_pass_unchanged() -> None:
    client = behind_the_edge(lambda request: JSONResponse({"mine": True}, 503))
    assert client.get("/").json() == {"mine": True}
    health = behind_the_edge(lambda request: PlainTextResponse("DRAINING", 503))
    assert health.get("/-/healthz").text == "DRAINING"


def test_a_request_that_serve_leaves_without_an_answer_may_be_tried_again() -> None:
    async def silent(scope: Scope, receive: Receive, send: Send) -> None:
        """As Serve's proxy where the replica dies."""

    response = TestClient(middlewares()[0].cls(silent)).get("/")
    assert (response.status_code, response.json()["reason"]) == (502, "replica_gone")
    assert response.headers["retry-after"] == "1"
    own = TestClient(middlewares()[0].cls(silent)).get("/", headers={"x-request-id": "line-4"})
    assert own.headers["x-request-id"] == "line-4"
    assert response.headers["x-request-id"] != "line-4"


def test_a_share_of_a_flood_is_refused_at_the_door_and_nothing_else_is() -> None:
    seen: Counter[str] = Counter()

    def overloaded(request: Request) -> Response:
        seen[request.method] += 1
        return JSONResponse({}, 503)

    client = behind_the_edge(overloaded)
    refused = [client.post("/v1/classify") for _ in range(200)]
    assert {response.status_code for response in refused} == {503}
    assert 0 < seen["POST"] < 100
    at_the_door = [response.headers for response in refused if response.content != b"{}"]
    assert all("retry-after" in headers for headers in at_the_door)
    assert len({headers["x-request-id"] for headers in at_the_door}) == len(at_the_door)
    for _ in range(20):
        client.get("/v1/model")
    assert seen["GET"] == 20


def test_a_flood_of_made_up_tokens_shuts_nobody_out() -> None:
    seen: Counter[str] = Counter()

    def unreachable(request: Request) -> Response:
        seen[request.method] += 1
        return JSONResponse({"reason": UNREACHABLE}, 503)

    client = behind_the_edge(unreachable)
    for _ in range(200):
        client.post("/v1/classify")
    assert seen["POST"] == 200, "all come to the guard, that knows who is who"
