"""Pictures of where a model looked, for answers that are asked to explain themselves."""

from __future__ import annotations

import asyncio
import base64
import io
import threading

from PIL import Image

from glint.vision.decode import decode
from glint.vision.explain import Explainer, overlay
from glint.vision.predictor import Predictor

LONGEST_SIDE_PX = 640


class Explanations:
    """Explains one predictor's answers; its second network is loaded when the first explanation is asked for."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._explainer: Explainer | None = None
        self.turn = asyncio.Lock()
        """to be held by who asks, or those that wait for one another would keep threads from other images"""
        self._alone = threading.Lock()
        """held for the network, which is loaded once, and whose features are caught from it by one image at a time"""

    def explain(self, data: bytes, label: str) -> str | None:
        """A PNG in base64 of the image in grey with what spoke for `label` over it.

        None where that cannot be told, or where a model that has just taken over does not know that label.
        """
        if label not in self._predictor.classes:
            return None
        pixels = self._predictor.prepare(data).pixels
        with self._alone:
            explainer = self._explainer = self._explainer or Explainer(self._predictor.bundle)
            heat = explainer.saliency(pixels, self._predictor.classes.index(label))
        if heat is None:
            return None
        picture = Image.fromarray(decode(data, self._predictor.limits).permute(1, 2, 0).numpy())
        picture.thumbnail((LONGEST_SIDE_PX, LONGEST_SIDE_PX), Image.Resampling.LANCZOS)
        file = io.BytesIO()
        overlay(picture, heat, explainer.preprocessing).save(file, "PNG")
        return base64.b64encode(file.getvalue()).decode("ascii")
