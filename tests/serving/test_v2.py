import base64
import io
import threading
import time
from collections.abc import Iterator
from itertools import cycle
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image
from tritonclient.utils import InferenceServerException

from glint.serving.addresses import free_port
from glint.serving.bodies import BodyLimits
from glint.serving.problems import ProblemError, answer_with_problems
from glint.serving.protocol import read_request
from glint.serving.v2 import protocol_v2
from glint.vision.bundle import Bundle
from glint.vision.predictor import Predictor


@pytest.fixture(scope="module")
def server(api: FastAPI) -> Iterator[str]:
    """The API on a port of its own, for clients that open connections themselves."""
    port = free_port("127.0.0.1", 0)
    running = uvicorn.Server(uvicorn.Config(api, port=port, log_level="error"))
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started:
        time.sleep(0.01)
    yield f"127.0.0.1:{port}"
    running.should_exit = True
    thread.join()


@pytest.fixture
def client(server: str) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server) as client:
        yield client


def pictures() -> list[bytes]:
    encoded = []
    for colour in ("red", "green", "blue"):
        file = io.BytesIO()
        Image.new("RGB", (32, 32), colour).save(file, "PNG")
        encoded.append(file.getvalue())
    return encoded


def tensor(images: list[bytes]) -> triton.InferInput:
    given = triton.InferInput("image", [len(images)], "BYTES")
    given.set_data_from_numpy(np.array(images, dtype=object))
    return given


def test_tritons_client_finds_server_and_model(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("boards")
    assert client.is_model_ready("boards", "3")
    assert not client.is_model_ready("leaves")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    metadata = client.get_model_metadata("boards")
    assert metadata["versions"] == ["3"]
    assert metadata["outputs"][0] == {"name": "probabilities", "datatype": "FP32", "shape": [-1, 4]}


@pytest.mark.parametrize("binary", [True, False])
def test_tritons_client_gets_what_the_predictor_says(
    client: triton.InferenceServerClient, predictor: Predictor, binary: bool
) -> None:
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("probabilities", "label")]
    result = client.infer("boards", [tensor(pictures())], outputs=outputs, request_id="r1")
    expected = predictor.predict(pictures())
    labels = [one.decode() if isinstance(one, bytes) else one for one in result.as_numpy("label")]
    assert labels == [one.label for one in expected]
    shares = result.as_numpy("probabilities")
    assert (shares.shape, shares.dtype) == ((3, 4), np.float32)
    assert shares.max(axis=1) == pytest.approx([one.confidence for one in expected], abs=1e-6)
    assert result.get_response()["id"] == "r1"


def test_all_outputs_come_as_binary_data_unless_some_are_named(client: triton.InferenceServerClient) -> None:
    result = client.infer("boards", [tensor(pictures())])
    assert [len(result.as_numpy(name)) for name in ("probabilities", "label", "decision")] == [3, 3, 3]


def test_errors_arrive_in_the_clients_words(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="not an image"):
        client.infer("boards", [tensor([b"junk"])])
    with pytest.raises(InferenceServerException, match="there are: boards"):
        client.infer("leaves", [tensor(pictures())])


def test_images_in_base64_do_without_binary_data(api: FastAPI, predictor: Predictor) -> None:
    data = [base64.b64encode(image).decode() for image in pictures()]
    body = {"inputs": [{"name": "image", "shape": [3], "datatype": "BYTES", "data": data}]}
    answer = TestClient(api).post("/v2/models/boards/infer", json=body).json()
    labels = next(one for one in answer["outputs"] if one["name"] == "label")
    assert labels["data"] == [one.label for one in predictor.predict(pictures())]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"name": "x"}, "invalid_input"),
        ({"datatype": "FP32"}, "invalid_input"),
        ({"shape": [2]}, "invalid_shape"),
        ({"shape": []}, "invalid_body"),
        ({"data": ["%"]}, "invalid_body"),
    ],
)
def test_tensors_that_are_not_as_described_are_problems(api: FastAPI, change: dict[str, object], reason: str) -> None:
    given = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [""]} | change
    response = TestClient(api).post("/v2/models/boards/infer", json={"inputs": [given]})
    assert (response.status_code, response.json()["reason"]) == (422, reason)
    assert response.json()["error"] == response.json()["detail"]


def test_no_more_elements_are_looked_at_than_a_request_may_have() -> None:
    """16 million of no bytes each would keep everybody waiting for seconds."""
    head = b'{"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 1}}]}'
    began = time.process_time()
    with pytest.raises(ProblemError, match="for 33 or more"):
        read_request(head + bytes(64_000_000), str(len(head)))
    assert time.process_time() - began < 1


@pytest.mark.parametrize(("data", "reason"), [([""] * 33, "invalid_body"), ([[""] * 34], "invalid_shape")])
def test_too_many_images_in_base64_are_a_problem(api: FastAPI, data: list[Any], reason: str) -> None:
    given = {"name": "image", "shape": [33], "datatype": "BYTES", "data": data}
    response = TestClient(api).post("/v2/models/boards/infer", json={"inputs": [given]})
    assert (response.status_code, response.json()["reason"]) == (422, reason)


@pytest.mark.parametrize("header", ["-1", "99999999", "many"])
def test_a_header_that_is_no_length_is_a_problem(api: FastAPI, header: str) -> None:
    headers = {"Inference-Header-Content-Length": header}
    response = TestClient(api).post("/v2/models/boards/infer", content=b"{}", headers=headers)
    assert (response.status_code, response.json()["reason"]) == (400, "bad_header")


def test_one_side_of_a_model_has_its_own_version(bundle: Bundle) -> None:
    served = Sides(Predictor(bundle, "boards", "7"), Predictor(bundle, "boards", "8"))
    app = FastAPI()
    app.include_router(protocol_v2(served, BodyLimits()))
    answer_with_problems(app)
    client = TestClient(app)
    assert client.get("/v2/models/boards").json()["versions"] == ["7", "8"]
    assert client.get("/v2/models/boards@challenger").json()["versions"] == ["8"]
    assert client.get("/v2/models/boards@challenger/versions/8/ready").status_code == 200
    assert client.get("/v2/models/boards@challenger/versions/7/ready").status_code == 404
    one = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(pictures()[0]).decode()]}
    two = one | {"shape": [2], "data": 2 * one["data"]}
    assert client.post("/v2/models/boards/infer", json={"inputs": [one]}).json()["model_version"] == "7"
    mixed = client.post("/v2/models/boards/infer", json={"inputs": [two]})
    assert (mixed.status_code, mixed.json()["reason"], mixed.headers["retry-after"]) == (503, "models_differ", "1")


class Sides:
    """A champion and a challenger that answer images in turn."""

    def __init__(self, *predictors: Predictor) -> None:
        self._predictors = predictors
        self._turn = cycle(predictors)
        self.names = ("boards", "boards@champion", "boards@challenger", "boards/7", "boards/8")

    def describe(self, name: str | None) -> tuple[Any, tuple[str, ...]]:
        if name not in self.names:
            raise ProblemError(404, "unknown_model", "none")
        predictor = self._predictors[name in ("boards@challenger", "boards/8")]
        return predictor.model, predictor.classes

    def check_room(self, name: str | None) -> None:
        pass

    async def probabilities(self, name: str | None, data: bytes, key: bytes | None) -> tuple[Any, Any, list[float]]:
        predictor = next(self._turn)
        shares = predictor.score_one(predictor.prepare(data).pixels)
        return predictor.interpret(shares), predictor.model, shares.tolist()
