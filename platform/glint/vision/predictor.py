"""A bundle made ready to answer: bytes or paths in, predictions out. Evaluation, batch and online all score here."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import torch

from glint.core.errors import GlintError, ImageError
from glint.core.outcome import DEFAULT_TOP_K, ModelRef, Prediction, Score, failed
from glint.core.policy import PRESENT_FROM
from glint.vision.bundle import Bundle
from glint.vision.decode import Limits
from glint.vision.dynamic_batching import DynamicBatcher
from glint.vision.engines.engine import Logits
from glint.vision.engines.opening import choose_engine, open_engine
from glint.vision.transforms import Loaded, load_image

Probabilities = np.ndarray[tuple[int, int], np.dtype[np.float32]]


class Preparer:
    """Turns encoded images into the input of a bundle's network, without holding the network."""

    def __init__(self, bundle: Bundle, limits: Limits | None = None) -> None:
        self.bundle = bundle
        self.limits = limits or Limits()

    def prepare(self, data: bytes | memoryview) -> Loaded:
        """Decode and resize one encoded image; raises ImageError saying why it cannot."""
        return load_image(data, self.bundle.info.preprocessing, self.limits)


class Predictor(Preparer):
    """Scores images with one bundle; safe to call from several threads.

    `name` and `version` are the registry's, None for a bundle from a directory. `engine` is one of ENGINES.
    """

    def __init__(
        self,
        bundle: Bundle,
        name: str | None = None,
        version: str | None = None,
        limits: Limits | None = None,
        engine: str = "auto",
    ) -> None:
        super().__init__(bundle, limits)
        self.classes = bundle.info.classes
        self._engine = open_engine(bundle, engine)
        self._batcher = DynamicBatcher(self.score, self._engine.batch_size) if self._engine.batch_size > 1 else None
        # The engine's own name: it may be another one than was asked for, where a network cannot be converted.
        self.model = model_ref(bundle, name, version).model_copy(update={"engine": self._engine.name})

    @property
    def num_streams(self) -> int:
        """How many submissions run at once; so many are worth keeping in flight."""
        return self._engine.num_streams

    @property
    def batch_size(self) -> int:
        """How many images are worth submitting together: 1 on a CPU."""
        return self._engine.batch_size

    def close(self) -> None:
        """Give the engine's threads and memory back."""
        self._engine.close()

    @property
    def multi_label(self) -> bool:
        """Whether an image has any number of classes, each with a probability of its own, instead of exactly one."""
        return self.bundle.info.recipe.task == "multi"

    def score(self, images: torch.Tensor) -> Probabilities:
        """uint8 images (N, 3, S, S) -> float32 probabilities (N, C), calibrated by the policy's temperature.

        Each row sums to 1, but not that of a multi-label model. A gray model's images are (N, 1, S, S).
        """
        return self._probabilities(images, self.bundle.policy.temperature)

    def score_one(self, image: torch.Tensor) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        """One uint8 image (3, S, S) -> its probabilities (C,); on a GPU together with those of other threads."""
        if self._batcher:
            return self._batcher.score_one(image)
        row: np.ndarray[tuple[int], np.dtype[np.float32]] = self.score(image[None])[0]
        return row

    def submit(self, images: torch.Tensor) -> Future[Probabilities]:
        """What `score` returns, to come: decoding the next image overlaps with it. N must be positive.

        RuntimeError is set where the engine fails. Callbacks run in the engine's thread and must be quick.
        """
        found: Future[Probabilities] = Future()
        self._engine.submit(images).add_done_callback(lambda done: self._pass_on(done, found))
        return found

    def raw_score(self, images: torch.Tensor) -> Probabilities:
        """The same without calibration: what a temperature is fitted to."""
        return self._probabilities(images, 1.0)

    def interpret(
        self, probabilities: Sequence[float] | np.ndarray[Any, Any], top_k: int = DEFAULT_TOP_K
    ) -> Prediction:
        """One row of calibrated probabilities (C,) as a prediction with the policy's decision.

        A multi-label image has every class that is more likely there than not, perhaps none, the likeliest first; its
        confidence is that of its least certain statement, of a class's presence or absence.
        """
        shares = np.minimum(probabilities, 1.0)
        ranked, policy = np.argsort(-shares, kind="stable"), self.bundle.policy
        if self.multi_label:
            labels = tuple(self.classes[i] for i in ranked if shares[i] >= PRESENT_FROM)
            confidence = float(np.maximum(shares, 1 - shares).min())
            decision = policy.decide_labels(dict(zip(self.classes, shares.tolist(), strict=True)))
        else:
            labels, confidence = (self.classes[ranked[0]],), float(shares[ranked[0]])
            decision = policy.decide(labels[0], confidence)
        top = tuple(Score(label=self.classes[i], confidence=float(shares[i])) for i in ranked[:top_k])
        return Prediction(status="ok", labels=labels, confidence=confidence, top_k=top, decision=decision)

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
        return self.interpret(self.score_one(prepared.pixels), top_k)

    def _probabilities(self, images: torch.Tensor, temperature: float) -> Probabilities:
        if not len(images):
            return np.zeros((0, len(self.classes)), dtype=np.float32)
        return self._shares(self._engine.logits(images), temperature)

    def _shares(self, logits: Logits, temperature: float) -> Probabilities:
        scaled = torch.from_numpy(logits) / temperature
        shares: Probabilities = (scaled.sigmoid() if self.multi_label else scaled.softmax(1)).numpy()
        return shares

    def _pass_on(self, done: Future[Logits], found: Future[Probabilities]) -> None:
        if not found.set_running_or_notify_cancel():
            return  # nobody waits for it any more
        if done.cancelled():
            found.set_exception(RuntimeError("the engine was closed before it ran this"))
        elif error := done.exception():
            found.set_exception(error)
        else:
            found.set_result(self._shares(done.result(), self.bundle.policy.temperature))


def model_ref(bundle: Bundle, name: str | None, version: str | None, engine: str = "auto") -> ModelRef:
    """How outcomes name a bundle and the engine that runs it on a machine like this one."""
    return ModelRef(
        name=name,
        version=version,
        bundle=bundle.digest,
        policy=bundle.policy.digest,
        engine=choose_engine(bundle, engine),
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
