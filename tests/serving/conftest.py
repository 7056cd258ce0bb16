"""The online API around one small model, without Ray."""

import pytest
from fastapi import FastAPI

from glint.adapters.images import Images
from glint.serving.api import create_app
from glint.serving.bodies import BodyLimits
from glint.serving.classifier import Classifier
from glint.serving.metrics import Metrics
from glint.serving.models import Models
from glint.serving.sources import Found, Source
from glint.serving.uris import AllowedUris
from glint.vision.bundle import Bundle
from glint.vision.decode import Limits
from glint.vision.predictor import Predictor

MAX_BYTES = 100_000
MAX_PIXELS = 100_000


@pytest.fixture(scope="module")
def predictor(bundle: Bundle) -> Predictor:
    return Predictor(bundle, "boards", "3", Limits(max_bytes=MAX_BYTES, max_pixels=MAX_PIXELS))


@pytest.fixture(scope="module")
def api(predictor: Predictor) -> FastAPI:
    models = Models(
        [Source("boards", lambda: Found("3", lambda: predictor))], Classifier(num_threads=2, max_wait_s=60), Metrics()
    )
    return create_app(models, BodyLimits(MAX_BYTES), AllowedUris(Images(), ["az://allowed/line"]).open)
