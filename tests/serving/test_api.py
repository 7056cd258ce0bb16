import asyncio
import base64
import gzip
import io
import threading
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from glint.adapters.images import Images
from glint.serving.answering import together
from glint.serving.api import create_app
from glint.serving.bodies import BodyLimits
from glint.serving.classifier import Classifier
from glint.serving.explanations import Explanations
from glint.serving.held import Held
from glint.serving.metrics import Metrics
from glint.serving.models import Models
from glint.serving.problems import ProblemError
from glint.serving.sources import Found, Source
from glint.serving.uris import AllowedUris
from glint.vision.bundle import Bundle
from glint.vision.explain import Explainer
from glint.vision.predictor import Predictor

MAX_BYTES = 100_000


@pytest.fixture(scope="module")
def client(api: FastAPI) -> Iterator[TestClient]:
    with TestClient(api) as client:
        yield client


def picture(kind: str = "PNG", mode: str = "RGB", size: tuple[int, int] = (48, 32)) -> bytes:
    file = io.BytesIO()
    gradient = Image.linear_gradient("L").resize(size)
    deep = Image.fromarray(np.asarray(gradient).astype(np.uint16) * 257)
    (deep if mode == "I;16" else gradient.convert(mode)).save(file, kind)
    return file.getvalue()


def assert_problem(response: Any, status: int, reason: str) -> str:
    """Check that a response is a problem of this status and reason, and give its detail."""
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert (response.status_code, body["status"], body["reason"]) == (status, status, reason)
    assert set(body) == {"type", "title", "status", "detail", "reason"}
    assert "\n" not in body["detail"]
    return str(body["detail"])


def test_answer_is_what_the_predictor_says(client: TestClient, predictor: Predictor) -> None:
    data = picture()
    answer = client.post("/v1/classify", content=data).json()
    (expected,) = predictor.predict([data])
    assert answer == {
        "label": expected.label,
        "labels": list(expected.labels),
        "confidence": pytest.approx(expected.confidence),
        "top_k": [{"label": s.label, "confidence": pytest.approx(s.confidence)} for s in expected.top_k],
        "decision": expected.decision,
        "explanation": None,
        "model": {
            "name": "boards",
            "version": "3",
            "bundle": predictor.bundle.digest,
            "policy": predictor.bundle.policy.digest,
            "engine": "torch",
        },
    }


@pytest.mark.parametrize(
    ("kind", "modes"),
    [
        ("JPEG", ["RGB", "L", "CMYK"]),
        ("PNG", ["RGB", "L", "1", "P", "RGBA", "LA", "I;16"]),
        ("WEBP", ["RGB", "RGBA"]),
        ("BMP", ["RGB", "L", "1", "P", "RGBA"]),
        ("TIFF", ["RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "I;16"]),
        ("GIF", ["L", "P"]),
    ],
)
def test_every_kind_of_image_is_classified(client: TestClient, kind: str, modes: list[str]) -> None:
    for mode in modes:
        response = client.post("/v1/classify", content=picture(kind, mode))
        assert response.status_code == 200, f"{mode}: {response.text}"
        assert sum(score["confidence"] for score in response.json()["top_k"]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    "content_type",
    [
        "image/png",
        "image/jpeg",
        "IMAGE/PNG; name=a.png",
        "application/octet-stream",
        "application/x-www-form-urlencoded",
        None,
    ],
)
def test_the_body_says_what_it_is_not_its_content_type(client: TestClient, content_type: str | None) -> None:
    headers = {"content-type": content_type} if content_type else {}
    assert client.post("/v1/classify", content=picture(), headers=headers).status_code == 200


@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_top_k_gives_so_many_classes_best_first(client: TestClient, top_k: int) -> None:
    answer = client.post("/v1/classify", params={"top_k": top_k}, content=picture()).json()
    confidences = [score["confidence"] for score in answer["top_k"]]
    assert len(confidences) == top_k
    assert confidences == sorted(confidences, reverse=True)
    assert answer["top_k"][0] == {"label": answer["label"], "confidence": answer["confidence"]}


def test_an_option_that_is_misspelt_is_refused(client: TestClient) -> None:
    detail = assert_problem(client.post("/v1/classify", params={"topk": 3}, content=picture()), 422, "invalid_query")
    assert detail == "topk is no parameter of /v1/classify; there are model, top_k, explain, sticky"


@pytest.mark.parametrize("top_k", ["0", "1001", "-1", "many", "", "1.5"])
def test_top_k_out_of_range_is_a_problem_that_names_it(client: TestClient, top_k: str) -> None:
    response = client.post("/v1/classify", params={"top_k": top_k}, content=picture())
    detail = assert_problem(response, 422, "invalid_query")
    assert detail.startswith("top_k: ")
    assert repr(top_k) in detail


@pytest.mark.parametrize(
    ("data", "status", "reason"),
    [
        (b"", 400, "empty"),
        (picture("JPEG")[:-200], 400, "truncated"),
        (picture("PNG")[:60], 400, "truncated"),
        (picture("PNG")[:16] + bytes(8) + picture("PNG")[24:], 400, "corrupt"),
        (b"a text file", 415, "not_an_image"),
        (b"%PDF-1.7", 415, "not_an_image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "not_an_image"),
        (picture("PNG", "1", (1000, 101)), 413, "too_many_pixels"),
    ],
    ids=[
        "empty",
        "truncated JPEG",
        "truncated PNG",
        "damaged PNG header",
        "text",
        "PDF",
        "SVG",
        "too many pixels",
    ],
)
def test_what_cannot_be_classified_is_a_problem(client: TestClient, data: bytes, status: int, reason: str) -> None:
    response = client.post("/v1/classify", content=data, headers={"content-type": "image/jpeg"})
    assert_problem(response, status, reason)


def test_a_bad_image_leaves_the_next_request_alone(client: TestClient) -> None:
    assert client.post("/v1/classify", content=b"junk").status_code == 415
    assert client.post("/v1/classify", content=picture()).status_code == 200


@pytest.mark.parametrize("content_type", ["application/xml", "text/plain", "image"])
def test_a_content_type_that_is_no_image_is_refused(client: TestClient, content_type: str) -> None:
    response = client.post("/v1/classify", content=picture(), headers={"content-type": content_type})
    assert "image/*" in assert_problem(response, 415, "content_type")


def test_a_body_above_the_limit_is_refused(client: TestClient) -> None:
    assert f"{MAX_BYTES:,}" in assert_problem(
        client.post("/v1/classify", content=bytes(MAX_BYTES + 1)), 413, "too_many_bytes"
    )
    assert_problem(client.post("/v1/classify", content=bytes(MAX_BYTES)), 415, "not_an_image")


def test_a_body_without_a_length_is_read_no_further_than_the_limit(client: TestClient) -> None:
    sent = 0

    async def receive() -> dict[str, Any]:
        nonlocal sent
        sent += 10_000
        return {"type": "http.request", "body": bytes(10_000), "more_body": True}

    status, body = asyncio.run(_post(client.app, receive))
    assert (status, sent) == (413, MAX_BYTES + 10_000)
    assert b"too_many_bytes" in body


def test_a_caller_who_hangs_up_midway_is_no_error_of_ours(client: TestClient) -> None:
    messages = iter(
        [{"type": "http.request", "body": b"half", "more_body": True}, {"type": "http.disconnect"}],
    )

    async def receive() -> dict[str, Any]:
        return next(messages)

    status, body = asyncio.run(_post(client.app, receive))
    assert status == 400
    assert b"incomplete" in body


async def _post(app: Any, receive: Any) -> tuple[int, bytes]:
    """POST /v1/classify at the ASGI interface, where a client's library does not help."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "http_version": "1.1", "method": "POST", "scheme": "http", "path": "/v1/classify"}
    await app(scope | {"query_string": b"", "headers": []}, receive, send)
    return sent[0]["status"], sent[1]["body"]


def test_paths_and_methods_that_do_not_exist_are_problems(client: TestClient) -> None:
    assert "/nowhere" in assert_problem(client.get("/nowhere"), 404, "not_found")
    response = client.get("/v1/classify")
    assert_problem(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "POST"


def test_our_own_mistake_tells_nothing_of_the_inside(predictor: Predictor) -> None:
    class Broken(Models):
        async def classify(self, name: str | None, data: bytes, top_k: int, key: bytes | None = None) -> Any:
            raise ZeroDivisionError("a secret of the inside")

    models = Broken([Source("boards", lambda: Found("3", lambda: predictor))], Classifier(1), Metrics())
    app = create_app(models, BodyLimits(), AllowedUris(Images(), ()).open)
    client = TestClient(app, raise_server_exceptions=False)
    response = client.post("/v1/classify", content=picture(), headers={"x-request-id": "abc"})
    assert "abc" in assert_problem(response, 500, "internal_error")
    assert "secret" not in response.text


class Slow(Predictor):
    """Takes longer for an image than any may wait."""

    def prepare(self, data: bytes | memoryview) -> Any:
        time.sleep(0.05)
        return super().prepare(data)


class Fragile(Predictor):
    """Its engine fails on tall pictures."""

    def prepare(self, data: bytes | memoryview) -> Any:
        prepared = super().prepare(data)
        if prepared.height > prepared.width:
            raise RuntimeError("a secret of the inside")
        return prepared


def asked_of(predictor: Predictor, max_wait_s: float = 60) -> TestClient:
    source = Source("boards", lambda: Found("3", lambda: predictor))
    models = Models([source], Classifier(1, max_wait_s), Metrics())
    return TestClient(create_app(models, BodyLimits(), AllowedUris(Images(), ()).open), raise_server_exceptions=False)


def test_an_idle_server_refuses_no_image_for_the_others_of_its_request(bundle: Bundle) -> None:
    client = asked_of(Slow(bundle), max_wait_s=0.01)
    for _ in range(2):
        results = client.post("/v1/classify", files=[("image", picture())] * 8).json()["results"]
        assert [one["error"] for one in results] == [None] * 8
    tensor = {"name": "image", "shape": [8], "datatype": "BYTES", "data": [base64.b64encode(picture()).decode()] * 8}
    assert client.post("/v2/models/boards/infer", json={"inputs": [tensor]}).status_code == 200


def test_a_request_is_refused_as_a_whole_and_counted(bundle: Bundle) -> None:
    client = asked_of(Slow(bundle), max_wait_s=0.01)
    client.post("/v1/classify", content=picture())
    with ThreadPoolExecutor(3) as callers:
        files = [("image", picture())] * 4
        answers = list(callers.map(lambda _: client.post("/v1/classify", files=files), range(3)))
    assert {answer.status_code for answer in answers} == {200, 503}
    told = client.get("/metrics").text
    assert 'glint_images_total{model="boards",outcome="overloaded"}' in told
    answered = 1 + 4 * [answer.status_code for answer in answers].count(200)
    assert f'glint_image_seconds_count{{model="boards"}} {answered}.0' in told, "what is refused takes no time"


def test_our_own_mistake_with_one_image_leaves_the_others_their_answers(
    bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    files = [("image", picture()), ("image", picture(size=(32, 48)))]
    good, failed = asked_of(Fragile(bundle)).post("/v1/classify", files=files).json()["results"]
    assert (good["error"], failed["error"]["type"]) == (None, "internal_error")
    assert "secret" not in failed["error"]["message"]
    assert "a secret of the inside" in caplog.text


def test_json_of_many_parts_is_refused_before_it_fills_the_memory(bundle: Bundle) -> None:
    body = b'{"images": [' + b",".join([b"{}"] * 1_000_000) + b"]}"
    client = asked_of(Predictor(bundle))
    for path, key in (("/v1/classify", b"images"), ("/v2/models/boards/infer", b"inputs")):
        tracemalloc.start()
        response = client.post(path, content=body.replace(b"images", key), headers={"content-type": "application/json"})
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (response.status_code, response.json()["reason"]) == (422, "invalid_body")
        assert "2,000,001 commas and brackets" in response.json()["detail"]
        assert peak_bytes < 10 * len(body)


def test_where_one_answer_of_several_is_none_the_others_end_at_once() -> None:
    ended = asyncio.Event()

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def refuse() -> None:
        await asyncio.sleep(0)
        raise ProblemError(503, "overloaded", "the images of other requests fill the memory")

    async def ask() -> None:
        with pytest.raises(ProblemError):
            await together([wait(), refuse()])
        await asyncio.wait_for(ended.wait(), 5)

    asyncio.run(ask())


def test_blobs_that_requests_hold_are_bounded_and_wait_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    class Blobs(Images):
        def read(self, uri: str, etag: str | None = None) -> bytes:
            return bytes(600)

    async def ask() -> None:
        uris = AllowedUris(Blobs(), ["az://boards"], held := Held(1000))
        most = 0

        async def one(number: int) -> None:
            nonlocal most
            async with uris.open(f"az://boards/{number}.jpg") as data:
                most = max(most, held.num_bytes)
                await asyncio.sleep(0.001)
                assert len(data) == 600

        await asyncio.wait_for(asyncio.gather(*map(one, range(20))), 10)
        assert (most, held.num_bytes) == (600, 0)
        monkeypatch.setattr("glint.serving.uris.ROOM_WAIT_S", 0.05)
        held.take(900)
        for place, said in (("boards", "the images of other requests fill the memory"), ("others", "below no prefix")):
            with pytest.raises(ProblemError, match=said):
                await entered(uris, f"az://{place}/a.jpg")
        assert held.num_bytes == 900

    async def entered(uris: AllowedUris, uri: str) -> None:
        async with uris.open(uri):
            pass

    asyncio.run(ask())


def test_work_whose_caller_has_gone_counts_and_has_its_turn_until_it_ends() -> None:
    classifier, begun, over = Classifier(2), threading.Event(), threading.Event()

    def explanation() -> None:
        begun.set()
        over.wait(30)

    async def leave() -> None:
        turn = asyncio.Lock()
        first, waits = (asyncio.create_task(classifier.run(explanation, turn=turn)) for _ in range(2))
        await asyncio.to_thread(begun.wait, 30)
        for task in (first, waits):
            task.cancel()
        await asyncio.gather(first, waits, return_exceptions=True)
        assert (classifier.admission.pending, turn.locked()) == (1, True)
        over.set()
        await asyncio.wait_for(turn.acquire(), 30)
        async with asyncio.timeout(30):
            while classifier.admission.pending:
                await asyncio.sleep(0.01)

    asyncio.run(leave())


def test_explanations_that_wait_for_one_another_count_and_leave_the_threads_to_others() -> None:
    classifier, began = Classifier(2), threading.Event()

    async def explain() -> tuple[int, float]:
        turn, over = asyncio.Lock(), threading.Event()

        def explanation() -> None:
            began.set()
            over.wait(30)

        waiting = [asyncio.create_task(classifier.run(explanation, turn=turn)) for _ in range(4)]
        await asyncio.to_thread(began.wait, 30)
        pending = classifier.admission.pending
        found = await asyncio.wait_for(classifier.run(lambda: 1.0), 30)
        over.set()
        await asyncio.gather(*waiting)
        return pending, found

    assert asyncio.run(explain()) == (4, 1.0)


def test_explanations_count_as_work_and_load_their_network_once(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier, predictor, loaded = Classifier(4), Predictor(bundle), []
    began: set[int] = set()

    def load(given: Bundle) -> Explainer:
        loaded.append(given)
        began.update(classifier._began)
        time.sleep(0.05)
        return Explainer(given)

    monkeypatch.setattr("glint.serving.explanations.Explainer", load)
    explanations = Explanations(predictor)

    async def explain() -> list[str | None]:
        asked = (classifier.run(explanations.explain, picture(), "good") for _ in range(4))
        return await asyncio.gather(*asked)

    assert all(asyncio.run(explain()))
    assert len(loaded) == 1
    assert began, "a thread that hangs there would be noticed"
    assert classifier._began == {}
    assert classifier.admission._mean_s > 0.04


def test_model_page_says_what_is_served(client: TestClient, predictor: Predictor) -> None:
    served = client.get("/v1/model").json()
    assert served["classes"] == list(predictor.classes)
    assert served["model"]["bundle"] == predictor.bundle.digest
    assert served["max_bytes"] == MAX_BYTES


def test_root_points_to_pages_that_exist(client: TestClient) -> None:
    welcome = client.get("/").json()
    assert client.get(welcome["model"]).status_code == 200
    assert client.get(welcome["openapi"]).status_code == 200


def test_answers_tell_how_long_each_stage_took(client: TestClient) -> None:
    timing = client.post("/v1/classify", content=picture()).headers["server-timing"]
    assert [stage.partition(";")[0] for stage in timing.split(", ")] == ["body", "wait", "decode", "infer"]


def test_openapi_documents_bodies_answers_and_problems(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    classify = schema["paths"]["/v1/classify"]["post"]
    assert classify["requestBody"]["content"]["image/*"]["schema"] == {"type": "string", "format": "binary"}
    top_k = next(one["schema"] for one in classify["parameters"] if one["name"] == "top_k")
    assert (top_k["minimum"], top_k["maximum"], top_k["default"]) == (1, 1000, 5)
    for status in set(classify["responses"]) - {"200"}:
        content = classify["responses"][status]["content"]
        assert content == {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    assert set(schema["components"]["schemas"]["Problem"]["required"]) == {"title", "status", "detail", "reason"}
    assert _references(schema) <= {f"#/components/schemas/{name}" for name in schema["components"]["schemas"]}


def _references(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if "$ref" in node else set()
        return own.union(*(_references(value) for value in node.values()))
    return set[str]().union(*(_references(value) for value in node)) if isinstance(node, list) else set()


def test_no_page_loads_scripts_from_the_internet(client: TestClient) -> None:
    assert client.get("/docs").status_code == 404
    assert client.get("/redoc").status_code == 404


def test_files_of_a_form_each_get_their_answer_and_a_bad_one_disturbs_no_other(client: TestClient) -> None:
    files = [("image", (name, data)) for name, data in (("a", picture()), ("b", b"junk"), ("c", picture("JPEG")))]
    results = client.post("/v1/classify", files=files).json()["results"]
    assert [one["name"] for one in results] == ["a", "b", "c"]
    assert results[0]["classification"]["label"] == client.post("/v1/classify", content=picture()).json()["label"]
    assert (results[1]["classification"], results[1]["error"]["type"]) == (None, "not_an_image")
    assert results[2]["error"] is None


def test_too_many_files_and_encoded_bodies_are_refused_by_name(client: TestClient) -> None:
    many = client.post("/v1/classify", files=[("image", b"x")] * 33)
    assert (many.status_code, many.json()["reason"]) == (422, "too_many_images")
    zipped = client.post("/v1/classify", content=gzip.compress(picture()), headers={"content-encoding": "gzip"})
    assert (zipped.status_code, zipped.json()["reason"]) == (415, "content_encoding")


def test_a_form_with_one_file_is_answered_as_the_raw_body_is(client: TestClient) -> None:
    assert (
        client.post("/v1/classify", files={"image": picture()}).json()
        == client.post("/v1/classify", content=picture()).json()
    )


@pytest.mark.parametrize("name", ["images", '"images"'])
def test_an_image_may_have_any_name(client: TestClient, name: str) -> None:
    image = base64.b64encode(picture()).decode()
    assert client.post("/v1/classify", json={"name": name, "image": image}).status_code == 200
    padded = b'{"images":' + b" " * 2000 + b'[{"image":""}]}'
    spaced = b" " * 2000 + b'{"images": [{"image": ""}]}'
    for body in (padded, spaced):
        answer = client.post("/v1/classify", content=body, headers={"content-type": "application/json"})
        assert answer.json()["results"][0]["error"]["type"] == "empty"


def test_json_brings_images_in_base64(client: TestClient) -> None:
    image = base64.b64encode(picture()).decode()
    expected = client.post("/v1/classify", content=picture()).json()
    assert client.post("/v1/classify", json={"image": image}).json() == expected
    both = client.post("/v1/classify", json={"images": [{"image": image, "name": "one"}, {"image": ""}]}).json()
    assert both["results"][0] == {"name": "one", "classification": expected, "error": None}
    assert both["results"][1]["error"]["type"] == "empty"


@pytest.mark.parametrize("given", ["form", "json", "v2"])
def test_large_bodies_are_parsed_off_the_event_loop(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    threads: list[str] = []
    to_thread = asyncio.to_thread

    async def noted(work: Any, *arguments: Any) -> Any:
        threads.append(given)
        return await to_thread(work, *arguments)

    monkeypatch.setattr("asyncio.to_thread", noted)
    image = base64.b64encode(picture()).decode()
    tensor = {"name": "image", "shape": [2], "datatype": "BYTES", "data": [image, image]}
    questions: dict[str, tuple[str, dict[str, Any]]] = {
        "form": ("/v1/classify", {"files": [("image", picture()), ("image", picture())]}),
        "json": ("/v1/classify", {"json": {"images": [{"image": image}] * 2}}),
        "v2": ("/v2/models/boards/infer", {"json": {"inputs": [tensor]}}),
    }
    url, body = questions[given]
    small = client.post(url, **body)
    assert (small.status_code, threads) == (200, [])
    monkeypatch.setattr("glint.serving.bodies.LARGE_BODY", 100)
    large = client.post(url, **body)
    assert (large.json(), threads) == (small.json(), [given])


@pytest.mark.parametrize(
    "body", [{}, [], {"image": "%%"}, {"image": "", "uri": "az://a/b"}, {"images": []}, {"picture": "x"}]
)
def test_json_that_is_not_as_described_is_a_problem(client: TestClient, body: Any) -> None:
    assert_problem(client.post("/v1/classify", json=body), 422, "invalid_body")


@pytest.mark.parametrize(
    "uri",
    [
        "file:///etc/passwd",
        "/etc/passwd",
        "az://allowed/other/a.jpg",
        "az://allowed/line-5/a.jpg",
        "az://allowed/line/../other/a.jpg",
        "https://example.com/a.jpg",
    ],
)
def test_only_addresses_below_an_allowed_prefix_are_read(client: TestClient, uri: str) -> None:
    assert_problem(client.post("/v1/classify", json={"uri": uri}), 403, "uri_not_allowed")


def test_an_explanation_is_a_picture_of_the_image(client: TestClient) -> None:
    answer = client.post("/v1/classify?explain=true", content=picture(size=(64, 48))).json()
    shown = Image.open(io.BytesIO(base64.b64decode(answer["explanation"])))
    assert (shown.format, shown.size) == ("PNG", (64, 48))


def test_an_unknown_model_is_a_problem_that_names_those_there_are(client: TestClient) -> None:
    response = client.post("/v1/classify?model=leaves", content=picture())
    assert "there are: boards" in assert_problem(response, 404, "unknown_model")
    assert client.post("/v1/classify?model=boards", content=picture()).status_code == 200


def test_metrics_count_images_by_what_became_of_them(client: TestClient) -> None:
    client.post("/v1/classify", content=picture())
    client.post("/v1/classify", content=b"junk")
    text = client.get("/metrics").text
    assert 'glint_images_total{model="boards",outcome="ok"}' in text
    assert 'glint_images_total{model="boards",outcome="not_an_image"}' in text
    assert 'version="3"' in text
