"""A glint bundle as plain MLflow scores it: run by MLflow from the logged model, never imported by glint.

mlflow.pyfunc.load_model("models:/boards@champion").predict(pandas.DataFrame({"image": [jpeg_bytes]}))
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow.models
import pandas as pd
from mlflow.pyfunc import PythonModel

from glint.core.outcome import Prediction
from glint.vision.bundle import Bundle
from glint.vision.predictor import Predictor


class GlintModel(PythonModel):
    """Encoded images in the column `image`; out come `label` and `confidence`, null for an image that is none.

    Several labels of an image are joined by commas. Confidence is calibrated by the policy that came with the bundle.
    """

    def load_context(self, context: Any) -> None:
        """Open the bundle that was logged with this model."""
        self._predictor = Predictor(Bundle(Path(context.artifacts["bundle"])))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Score a table of images."""
        predictions = self._predictor.predict([bytes(image) for image in model_input["image"]], top_k=1)
        rows = [(_joined(prediction), prediction.confidence) for prediction in predictions]
        return pd.DataFrame(rows, columns=["label", "confidence"], index=model_input.index)


def _joined(prediction: Prediction) -> str | None:
    return ", ".join(prediction.labels) if prediction.status == "ok" else None


mlflow.models.set_model(GlintModel())
