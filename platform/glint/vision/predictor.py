"""A bundle made ready to answer: bytes or paths in, predictions out. Evaluation, batch and online all score here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from glint.core.errors import GlintError, ImageError
from glint.core.outcome import DEFAULT_TOP_K, ModelRef, Prediction, Score, failed
from glint.vision.bundle import Bundle
from glint.vision.decode import Limits
from glint.vision.engines.pytorch import TorchEngine
from glint.vision.transforms import Loaded, load_image


class Predictor:
    """Scores images with one bundle; safe to call from several threads.

    `name` and `version` are the registry's, None for a bundle from a directory.
    """

    def __init__(
        self, bundle: Bundle, name: str | None = None, version: str | None = None, limits: Limits | None = None
    ) -> None:
        self.bundle = bundle
        self.classes = bundle.info.classes
        self.model = model_ref(bundle, name, version)
        self.limits = limits or Limits()
        self._engine = TorchEngine(bundle)

    def prepare(self, data: bytes | memoryview) -> Loaded:
        """Decode and resize one encoded image; raises ImageError saying why it cannot."""
        settings = self.bundle.info.preprocessing
        return load_image(data, settings.image_size, settings.resize, self.limits)

    def score(self, images: torch.Tensor) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        """uint8 images (N, 3, S, S) -> float32 probabilities (N, C), each row summing to 1."""
        if not len(images):
            return np.zeros((0, len(self.classes)), dtype=np.float32)
        probabilities: np.ndarray[tuple[int, int], np.dtype[np.float32]] = (
            self._engine.logits(images).softmax(1).numpy()
        )
        return probabilities

    def interpret(
        self, probabilities: Sequence[float] | np.ndarray[Any, Any], top_k: int = DEFAULT_TOP_K
    ) -> Prediction:
        """One row of probabilities (C,) as a prediction with the policy's decision."""
        ranked = np.argsort(probabilities, kind="stable")[::-1][:top_k]
        scores = tuple(Score(label=self.classes[i], confidence=min(1.0, float(probabilities[i]))) for i in ranked)
        decision = self.bundle.policy.decide(scores[0].label, scores[0].confidence)
        return Prediction(
            status="ok", labels=(scores[0].label,), confidence=scores[0].confidence, top_k=scores, decision=decision
        )

    def predict(self, images: Sequence[str | Path | bytes], top_k: int = DEFAULT_TOP_K) -> list[Prediction]:
        """Classify files or encoded bytes, in order. A bad image has its reason in its own prediction's `error`."""
        if isinstance(images, str | bytes | Path):
            raise GlintError("predict takes a list of images, got one: put it in brackets")
        return [self._predict_one(image, top_k) for image in images]

    def _predict_one(self, image: str | Path | bytes, top_k: int) -> Prediction:
        try:
            prepared = self.prepare(image if isinstance(image, bytes) else _read(Path(image)))
        except ImageError as error:
            return failed(error)
        return self.interpret(self.score(prepared.pixels[None])[0], top_k)


def model_ref(bundle: Bundle, name: str | None, version: str | None) -> ModelRef:
    """How outcomes name a bundle and the engine that runs it."""
    return ModelRef(
        name=name, version=version, bundle=bundle.digest, policy=bundle.policy.digest, engine=TorchEngine.name
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ImageError("missing", "missing", f"there is no file {path}") from None
    except PermissionError:
        raise ImageError("denied", "denied", f"{path} may not be read") from None
    except OSError as error:
        raise ImageError("failed", "read_error", f"{path} cannot be read: {error.strerror}") from None
