"""A served model that follows its alias: swapped in place, and never for a worse reader."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from glint.core.errors import GlintError
from glint.core.outcome import Prediction
from glint.serving.classifier import Classifier, warm_up
from glint.serving.explanations import Explanations
from glint.vision.selftest import run_selftest

if TYPE_CHECKING:
    from glint.serving.sources import Source
    from glint.vision.predictor import Predictor

LOG = logging.getLogger("glint.serving")


@dataclass(frozen=True)
class Answered:
    """A prediction, what made it, and the milliseconds of each stage."""

    prediction: Prediction
    predictor: Predictor
    timings_ms: dict[str, float]

    @property
    def work_s(self) -> float:
        """That a thread worked on the image, without its wait for one."""
        return sum(took for stage, took in self.timings_ms.items() if stage != "wait") / 1000


@dataclass(frozen=True)
class Loaded:
    """A predictor that has passed its self-test, and what opened it."""

    identity: str
    predictor: Predictor
    explanations: Explanations

    async def answer(self, classifier: Classifier, data: bytes, top_k: int | None) -> Answered:
        """An encoded image's answer, `top_k` None for all classes; raises as Classifier.classify does."""
        wanted = len(self.predictor.classes) if top_k is None else top_k
        prediction, timings_ms = await classifier.classify(self.predictor, data, wanted)
        return Answered(prediction, self.predictor, timings_ms)


class LiveModel:
    """What a source means now. `current` is replaced as a whole; a request keeps what it began with, so none fails."""

    def __init__(self, source: Source) -> None:
        self.source = source
        found = source.find()
        self.current = _load(found.identity, found.open)
        self._refused: str | None = None

    def follow(self) -> str | None:
        """Serve what the source means now: `swapped` or `refused`, None where that is what is served or was refused.

        Raises GlintError, or an error of the registry's, where the source does not say.
        """
        found = self.source.find()
        if found.identity in (self.current.identity, self._refused):
            return None
        try:
            self.current = _load(found.identity, found.open)
        except GlintError as error:
            self._refused = found.identity
            LOG.error("%s stays at %s: %s", self.source.name, self.current.identity, error)
            return "refused"
        LOG.warning("%s is now %s", self.source.name, found.identity)
        return "swapped"


def _load(identity: str, open_predictor: Callable[[], Predictor]) -> Loaded:
    """Open and try a model; raises GlintError when it does not see what training saw."""
    predictor = open_predictor()
    result = run_selftest(predictor)
    if result and not result.passed:
        why = result.error or f"probabilities differ by {result.max_difference:.3g}, {result.tolerance:.3g} are allowed"
        raise GlintError(f"model {identity} fails its self-test: {why}")
    warm_up(predictor)
    return Loaded(identity, predictor, Explanations(predictor))
