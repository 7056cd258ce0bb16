import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from glint import AsyncClient, Client
from glint.client import RefusedError, StrangerError, UnavailableError
from glint.core.errors import GlintError

ANSWER = {
    "label": "good",
    "labels": ["good"],
    "confidence": 0.9,
    "top_k": [{"label": "good", "confidence": 0.9}],
    "decision": "accept",
    "model": {"name": "boards", "version": "3", "bundle": "b", "policy": "p", "engine": "torch"},
}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses are noted and not made."""
    paused: list[float] = []

    async def note(seconds: float) -> None:
        paused.append(seconds)

    monkeypatch.setattr("time.sleep", paused.append)
    monkeypatch.setattr("asyncio.sleep", note)
    return paused


def client(*answers: Any, **options: Any) -> tuple[Client, list[httpx.Request]]:
    handler, seen = _server(iter(answers))
    return Client(transport=httpx.MockTransport(handler), **options), seen


def _server(answers: Iterator[Any]) -> tuple[Callable[[httpx.Request], httpx.Response], list[httpx.Request]]:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return handler, seen


def ok() -> httpx.Response:
    return httpx.Response(200, json=ANSWER)


def problem(status: int, reason: str) -> httpx.Response:
    return httpx.Response(
        status,
        json={"title": "x", "status": status, "detail": f"it is {reason}", "reason": reason},
        headers={"content-type": "application/problem+json", "x-request-id": "line-4"},
    )


def test_an_image_is_classified_with_the_options_of_the_call() -> None:
    calling, seen = client(ok(), key="secret")
    assert calling.classify(b"bytes", model="boards", top_k=2, explain=True).label == "good"
    assert dict(seen[0].url.params) == {"model": "boards", "top_k": "2", "explain": "true"}
    assert (seen[0].content, seen[0].headers["authorization"]) == (b"bytes", "Bearer secret")


def test_an_address_in_blob_storage_is_named_and_not_read() -> None:
    calling, seen = client(ok())
    calling.classify("az://images/a.jpg")
    assert httpx.Response(200, content=seen[0].content).json() == {"uri": "az://images/a.jpg"}


@pytest.mark.parametrize("body", [b"{}", b"no JSON", b"[]", b'{"detail": "from a gateway"}'])
def test_a_problem_of_another_server_is_told_too(body: bytes) -> None:
    foreign = httpx.Response(403, content=body, headers={"content-type": "application/problem+json"})
    with pytest.raises(RefusedError) as refused:
        client(foreign)[0].classify(b"bytes")
    assert refused.value.reason == "unknown"
    assert str(refused.value)


@pytest.mark.parametrize(
    ("url", "key", "said"),
    [
        ("http://x y:z", None, r"url 'http://x y:z' must be an address"),
        ("http://x", "kéy", "must be printable ASCII"),
        ("http://x", "secret\n", "must be printable ASCII"),
    ],
)
def test_what_cannot_be_asked_is_one_line(url: str, key: str | None, said: str) -> None:
    with pytest.raises(GlintError, match=f"^[^\n]*{said}[^\n]*$") as refused:
        Client(url, key)
    assert "secret" not in str(refused.value)


def test_a_file_that_is_not_there_is_a_mistake_told_in_one_line() -> None:
    with pytest.raises(GlintError, match=r"nowhere\.jpg cannot be read"):
        client()[0].classify("nowhere.jpg")


@pytest.mark.parametrize(
    "first", [httpx.Response(503), httpx.Response(429), httpx.ConnectError("refused"), httpx.ReadError("reset")]
)
def test_what_may_pass_is_tried_again(first: Any) -> None:
    calling, seen = client(first, ok())
    assert calling.classify(b"x").label == "good"
    assert len(seen) == 2


@pytest.mark.parametrize("broken", [httpx.Response(502), httpx.Response(504), httpx.ReadError("reset")])
def test_an_image_that_may_be_the_end_of_a_server_is_sent_once_more_and_not_again(broken: Any) -> None:
    calling, seen = client(broken, httpx.Response(503), broken, ok())
    with pytest.raises(UnavailableError):
        calling.classify(b"x")
    assert len(seen) == 3, "the 503 in between began nothing"


@pytest.mark.parametrize(
    ("answer", "said", "status"),
    [
        (problem(408, "timed_out"), "408: it is timed_out", 408),
        (httpx.ReadTimeout("timed out"), "no answer in time: timed out", None),
        (httpx.WriteTimeout("timed out"), "no answer in time: timed out", None),
    ],
)
def test_an_image_that_takes_too_long_is_not_sent_again(answer: Any, said: str, status: int | None) -> None:
    calling, seen = client(answer, ok())
    with pytest.raises(UnavailableError, match=said) as unavailable:
        calling.classify(b"x")
    assert (len(seen), unavailable.value.status) == (1, status)


@pytest.mark.parametrize("asked_s", [3, 60, 120])
def test_retry_after_is_waited_for(no_pauses: list[float], asked_s: int) -> None:
    client(httpx.Response(503, headers={"retry-after": str(asked_s)}), ok())[0].classify(b"x")
    assert asked_s <= no_pauses[0] < asked_s + 1


def test_a_server_that_asks_for_longer_than_anybody_waits_is_unavailable(no_pauses: list[float]) -> None:
    calling, seen = client(httpx.Response(429, text="slowly", headers={"retry-after": "121"}), ok())
    with pytest.raises(UnavailableError, match=r"429: slowly \(it asks to wait for 121 s; no more than 120 s"):
        calling.classify(b"x")
    assert (len(seen), no_pauses) == (1, [])


@pytest.mark.parametrize("text", ["<html>welcome to nginx</html>", "{}", ""])
def test_a_server_that_is_no_glint_is_a_mistake_told_in_one_line(text: str) -> None:
    calling, _ = client(httpx.Response(200, text=text, headers={"content-type": "text/html"}))
    with pytest.raises(StrangerError, match=r"answers at http://127.0.0.1:8000/v1/classify is no glint, by its text/h"):
        calling.classify(b"x")


def test_pauses_differ_by_chance(no_pauses: list[float]) -> None:
    for _ in range(2):
        client(httpx.Response(503), ok())[0].classify(b"x")
    assert no_pauses[0] != no_pauses[1]


def test_a_refusal_is_not_tried_again_and_says_why() -> None:
    calling, seen = client(problem(415, "not_an_image"))
    with pytest.raises(RefusedError, match="it is not_an_image") as refused:
        calling.classify(b"x")
    assert (refused.value.status, refused.value.reason, refused.value.request_id) == (415, "not_an_image", "line-4")
    assert len(seen) == 1


def test_a_server_that_never_recovers_is_unavailable_after_all_attempts() -> None:
    calling, seen = client(*[httpx.Response(503, text="full")] * 3, max_attempts=3)
    with pytest.raises(UnavailableError, match="503: full"):
        calling.classify(b"x")
    assert len(seen) == 3


def test_what_may_not_happen_twice_is_not_sent_twice() -> None:
    calling, seen = client(httpx.ReadError("reset"))
    with pytest.raises(UnavailableError):
        calling.request("POST", "/v1/batch", idempotent=False)
    assert len(seen) == 1


def test_asyncio_callers_get_the_same() -> None:
    handler, seen = _server(iter([httpx.Response(503), ok()]))

    async def ask() -> str | None:
        async with AsyncClient(transport=httpx.MockTransport(handler)) as calling:
            return (await calling.classify(b"x")).label

    assert asyncio.run(ask()) == "good"
    assert len(seen) == 2


def test_a_question_about_a_job_that_took_too_long_is_asked_once_more() -> None:
    calling, seen = client(httpx.ReadTimeout("timed out"), httpx.Response(200))
    calling.request("GET", "/v1/batch/jobs")
    assert len(seen) == 2
