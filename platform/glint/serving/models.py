"""The models that a replica serves by name, each following its alias: swapped in place, and never for a worse reader.

A request keeps the predictor that it began with, so a swap fails none.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

from glint.core.errors import GlintError, ImageError
from glint.core.outcome import ModelRef, Prediction
from glint.serving.classifier import Classifier, warm_up
from glint.serving.explanations import Explanations
from glint.serving.metrics import Metrics
from glint.serving.problems import ProblemError
from glint.vision.selftest import run_selftest

if TYPE_CHECKING:
    from glint.serving.sources import Source
    from glint.vision.predictor import Predictor

LOG = logging.getLogger("glint.serving")


@dataclass(frozen=True)
class Loaded:
    """A predictor that has passed its self-test, and what opened it."""

    identity: str
    predictor: Predictor
    explanations: Explanations


class LiveModel:
    """One served name. `current` is replaced as a whole."""

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


class Models:
    """Answers for several models by name, on the threads of one classifier."""

    def __init__(self, sources: Sequence[Source], classifier: Classifier, metrics: Metrics) -> None:
        self._classifier, self._metrics = classifier, metrics
        self._live = {source.name: LiveModel(source) for source in sources}
        for name, live in self._live.items():
            metrics.serves(name, live.current.predictor.model)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the models, the default first."""
        return tuple(self._live)

    def describe(self, name: str | None) -> tuple[ModelRef, tuple[str, ...]]:
        """A model and its classes; raises ProblemError 404 for an unknown name."""
        predictor = self._named(name).current.predictor
        return predictor.model, predictor.classes

    def check_room(self) -> None:
        """Raise ProblemError 503 where an image that came now would wait for too long."""
        self._classifier.admission.check()

    async def classify(
        self, name: str | None, data: bytes, top_k: int
    ) -> tuple[Prediction, ModelRef, dict[str, float]]:
        """An image's prediction, the model that made it, and the milliseconds of each stage; raises ImageError."""
        live = self._named(name)
        predictor = live.current.predictor
        prediction, timings_ms = await self._counted(live.source.name, predictor, data, top_k)
        return prediction, predictor.model, timings_ms

    async def probabilities(self, name: str | None, data: bytes) -> tuple[Prediction, ModelRef, list[float]]:
        """An image's prediction and the probability of each class, in the order of the classes."""
        live = self._named(name)
        predictor = live.current.predictor
        prediction, _ = await self._counted(live.source.name, predictor, data, len(predictor.classes))
        shares = {score.label: score.confidence for score in prediction.top_k}
        return prediction, predictor.model, [shares[label] for label in predictor.classes]

    async def explain(self, name: str | None, data: bytes, label: str) -> str | None:
        """A PNG in base64 of where the model looked; None where that cannot be told."""
        explanations = self._named(name).current.explanations
        return await self._classifier.run(explanations.explain, data, label)

    async def _counted(
        self, name: str, predictor: Predictor, data: bytes, top_k: int
    ) -> tuple[Prediction, dict[str, float]]:
        began, outcome = perf_counter(), "error"
        try:
            answer = await self._classifier.classify(predictor, data, top_k)
            outcome = "ok"
            return answer
        except ImageError as error:
            outcome = error.type
            raise
        except ProblemError as problem:
            outcome = problem.reason
            raise
        finally:
            self._metrics.image(name, outcome, perf_counter() - began)

    def metrics(self) -> bytes:
        """The replica's counters, as Prometheus reads them."""
        self._metrics.pending.set(self._classifier.admission.pending)
        return self._metrics.text()

    def follow(self) -> None:
        """Let each model follow its alias once. What goes wrong leaves it as it is, and is counted and logged."""
        for name, live in self._live.items():
            try:
                result = live.follow()
            except Exception:
                LOG.exception("%s: its alias cannot be followed", name)
                result = "failed"
            if result:
                self._metrics.swap(name, result)
                self._metrics.serves(name, live.current.predictor.model)

    def _named(self, name: str | None) -> LiveModel:
        if name is None:
            return next(iter(self._live.values()))
        if name not in self._live:
            choices = ", ".join(self._live)
            raise ProblemError(404, "unknown_model", f"model {name[:100]!r} is not served; there are: {choices}")
        return self._live[name]


def _load(identity: str, open_predictor: Callable[[], Predictor]) -> Loaded:
    """Open and try a model; raises GlintError when it does not see what training saw."""
    predictor = open_predictor()
    result = run_selftest(predictor)
    if result and not result.passed:
        why = result.error or f"probabilities differ by {result.max_difference:.3g}, {result.tolerance:.3g} are allowed"
        raise GlintError(f"model {identity} fails its self-test: {why}")
    warm_up(predictor)
    return Loaded(identity, predictor, Explanations(predictor))
