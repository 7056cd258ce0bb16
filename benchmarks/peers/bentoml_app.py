"""bentoml serve bentoml_app:Classifier: the network behind BentoML, a worker for each core."""

import os
from pathlib import Path
from typing import Annotated

import bentoml
from bentoml.validators import ContentType
from network import Network


@bentoml.service(workers=os.cpu_count() or 1, traffic={"timeout": 60, "max_concurrency": 64})
class Classifier:
    """A form with the file `image` in, JSON out."""

    def __init__(self) -> None:
        self._network = Network()

    @bentoml.api
    def classify(self, image: Annotated[Path, ContentType("image/jpeg")]) -> dict[str, object]:
        """What the network says."""
        return self._network(image.read_bytes())
