"""Requests that name a blob: read with the server's identity, below the prefixes that it allows."""

import io
from functools import partial

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from glint.adapters.blob_account import BlobAccount
from glint.adapters.blob_admin import open_service
from glint.adapters.images import Images
from glint.emulators.servers import Azurite
from glint.serving.api import create_app
from glint.serving.bodies import BodyLimits
from glint.serving.classifier import Classifier
from glint.serving.metrics import Metrics
from glint.serving.models import Models
from glint.serving.sources import Found, Source
from glint.serving.uris import AllowedUris
from glint.vision.bundle import Bundle
from glint.vision.predictor import Predictor


def secrets(key: str) -> dict[str, str]:
    return {"account_key": key}


@pytest.fixture(scope="module")
def client(azurite: Azurite, bundle: Bundle) -> TestClient:
    credentials = partial(secrets, azurite.key)
    account = BlobAccount(azurite.account, azurite.endpoint, credentials)
    container = open_service(account).create_container("online")
    file = io.BytesIO()
    Image.linear_gradient("L").save(file, "PNG")
    for name, data in (("line-4/a b.png", file.getvalue()), ("line-4/text.png", b"text"), ("line-5/a.png", b"")):
        container.upload_blob(name, data, overwrite=True)
    predictor = Predictor(bundle, "boards")
    models = Models([Source("boards", lambda: Found("1", lambda: predictor))], Classifier(2, 60), Metrics())
    images = Images(azurite.account, azurite.endpoint, credentials)
    return TestClient(create_app(models, BodyLimits(), AllowedUris(images, ["az://online/line-4"]).open))


def test_blobs_below_an_allowed_prefix_are_classified_and_others_refused_by_reason(client: TestClient) -> None:
    assert client.post("/v1/classify", json={"uri": "az://online/line-4/a b.png"}).json()["label"]
    for name, status, reason in (
        ("line-4/none.png", 404, "not_found"),
        ("line-4/text.png", 415, "not_an_image"),
        ("line-5/a.png", 403, "uri_not_allowed"),
    ):
        answer = client.post("/v1/classify", json={"uri": f"az://online/{name}"})
        assert (answer.status_code, answer.json()["reason"]) == (status, reason)


def test_each_address_of_several_has_its_own_answer(client: TestClient) -> None:
    uris = [f"az://online/{name}" for name in ("line-4/a b.png", "line-5/a.png", "line-4/none.png")]
    results = client.post("/v1/classify", json={"images": [{"uri": uri} for uri in uris]}).json()["results"]
    assert [one["name"] for one in results] == uris
    assert [one["error"] and one["error"]["type"] for one in results] == [None, "uri_not_allowed", "not_found"]
