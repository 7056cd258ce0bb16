"""bentoml serve bentoml_app:Classifier: the eager network behind BentoML, a worker for each core."""

import os
from pathlib import Path
from typing import Annotated

import bentoml
from bentoml.validators import ContentType
from eager import Eager


@bentoml.service(workers=os.cpu_count() or 1, traffic={"timeout": 60, "max_concurrency": 64})
class Classifier:
    """A form with the file `image` in, JSON out."""

    def __init__(self) -> None:
        self._eager = Eager()

    @bentoml.api
    def classify(self, image: Annotated[Path, ContentType("image/jpeg")]) -> dict[str, object]:
        """What the network says."""
        return self._eager(image.read_bytes())
