import io
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import httpx
import pytest
import ray
from PIL import Image

from glint.core.errors import GlintError
from glint.serving.addresses import free_port
from glint.serving.admission import Admission
from glint.serving.memory import RaysMemory
from glint.serving.online import Serving, resources, scaling, start_online, stop_online
from glint.serving.problems import ProblemError
from glint.serving.sources import Found
from glint.settings import Settings
from glint.vision.bundle import Bundle
from glint.wiring import open_predictor, open_serving, serving_sources

MAX_BYTES = 1_000_000


@pytest.fixture(scope="module")
def server(
    ray_cluster: None, bundle: Bundle, serve_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    serving = replace(open_serving(Settings(max_bytes=MAX_BYTES)), max_wait_s=60)
    sources = serving_sources([str(bundle.directory)], Settings())
    url = start_online(sources, serving, port=serve_port, logs=tmp_path_factory.mktemp("logs"))
    with httpx.Client(base_url=url, timeout=30) as client:
        yield client
        stop_online()
        assert client.get("/v1/model").status_code == 404, "stopping takes the application away"


def stripes(width: int, kind: str = "PNG") -> bytes:
    """Pictures that a model tells apart: vertical stripes of this width in pixels."""
    image = Image.new("RGB", (64, 64), "white")
    for left in range(0, 64, 2 * width):
        image.paste("navy", (left, 0, left + width, 64))
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def test_answers_are_what_the_predictor_says_in_this_process(server: httpx.Client, bundle: Bundle) -> None:
    pictures = [stripes(8, kind) for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")]
    for data, expected in zip(pictures, open_predictor(str(bundle.directory)).predict(pictures), strict=True):
        answer = server.post("/v1/classify", content=data).json()
        assert answer["label"] == expected.label
        assert answer["confidence"] == pytest.approx(expected.confidence, abs=1e-6)
        assert [score["label"] for score in answer["top_k"]] == [score.label for score in expected.top_k]


def test_callers_at_the_same_time_each_get_their_own_answer(server: httpx.Client, bundle: Bundle) -> None:
    pictures = [stripes(width) for width in (1, 2, 4, 8, 16, 32)] * 5
    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(lambda data: server.post("/v1/classify", content=data).json(), pictures))
    expected = open_predictor(str(bundle.directory)).predict(pictures)
    assert [answer["confidence"] for answer in answers] == pytest.approx([one.confidence for one in expected], abs=1e-6)


def test_health_route_answers(server: httpx.Client) -> None:
    assert server.get("/-/healthz").status_code == 200


def test_errors_pass_through_the_server_as_problems(server: httpx.Client) -> None:
    responses = {
        400: server.post("/v1/classify", content=stripes(8)[:100]),
        404: server.get("/nowhere"),
        415: server.post("/v1/classify", content=b"a text file"),
        422: server.post("/v1/classify?top_k=0", content=stripes(8)),
    }
    for status, response in responses.items():
        assert response.status_code == response.json()["status"] == status
        assert response.headers["content-type"] == "application/problem+json"


def test_an_endless_body_is_cut_off(server: httpx.Client) -> None:
    response = server.post("/v1/classify", content=(bytes(65_536) for _ in range(10_000)))
    assert response.status_code == 413
    assert response.json()["reason"] == "too_many_bytes"


def test_each_answer_has_a_request_id_of_the_callers_choice(server: httpx.Client) -> None:
    assert server.get("/", headers={"x-request-id": "line-4"}).headers["x-request-id"] == "line-4"
    assert server.get("/").headers["x-request-id"] != server.get("/").headers["x-request-id"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"host": "localhost"}, "--host is localhost, but Serve runs on this Ray with host 127.0.0.1: name 127.0.0.1"),
        ({"port": 1}, "--port is 1, but Serve runs on this Ray with port "),
        ({"serving": Serving(request_timeout_s=7)}, "GLINT_SERVE_TIMEOUT_S is 7.0, but Serve runs on this Ray with"),
    ],
)
def test_other_options_than_those_of_a_running_serve_are_refused(
    server: httpx.Client, bundle: Bundle, serve_port: int, options: dict[str, Any], told: str
) -> None:
    """An open address must not be taken for a closed one, where nobody would be asked for a key."""
    with pytest.raises(GlintError, match=told):
        start_online(serving_sources([str(bundle.directory)], Settings()), **{"port": serve_port} | options)
    assert server.post("/v1/classify", content=stripes(8)).status_code == 200


def test_ray_remembers_for_all_of_its_processes_what_an_alias_last_served(ray_cluster: None) -> None:
    found = Found("models:/boards/3", partial(int, "3"))

    @ray.remote(num_cpus=0)
    def remember() -> None:
        RaysMemory()["boards@champion"] = found

    assert RaysMemory().get("boards@champion") is None
    ray.get(remember.remote())
    kept = RaysMemory().get("boards@champion")
    assert kept is not None
    assert (kept.identity, kept.open()) == ("models:/boards/3", 3)


def test_a_port_in_use_is_refused_by_name() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(GlintError, match=f"--port {port}: Address already in use"):
            free_port("127.0.0.1", port)


def test_port_0_takes_a_free_one() -> None:
    assert free_port("127.0.0.1", 0) > 0


def test_a_host_of_another_machine_is_refused_by_name() -> None:
    with pytest.raises(GlintError, match=r"--host 203\.0\.113\.1"):
        free_port("203.0.113.1", 0)


def test_slow_images_start_another_replica_although_few_may_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("glint.serving.admission.perf_counter", lambda: now[0])
    admission = Admission(num_threads=4, max_wait_s=2)
    with admission.at_work():
        now[0] += 60
    with suppress(ProblemError):
        for _ in range(100):
            admission.check()
            admission.pending += 1
    bounds = scaling(Serving(num_replicas=(1, 3), num_threads=4))["autoscaling_config"]
    assert bounds["target_ongoing_requests"] < admission.pending < 100


@pytest.mark.parametrize(("there", "share"), [({"CPU": 2.0}, {}), ({"CPU": 2.0, "GPU": 1.0}, {"num_gpus": 0.25})])
def test_replicas_take_a_share_of_a_gpu_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, there: dict[str, float], share: dict[str, float]
) -> None:
    monkeypatch.setattr("glint.serving.online.ray.cluster_resources", lambda: there)
    assert resources(0.25) == {"num_cpus": 0.5, **share}
