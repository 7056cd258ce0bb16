"""A served model that follows its alias: swapped in place, and never for a worse reader."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from safetensors import SafetensorError

from glint.core.errors import GlintError
from glint.core.outcome import Prediction
from glint.serving.classifier import Classifier, warm_up
from glint.serving.explanations import Explanations
from glint.vision.selftest import run_selftest

if TYPE_CHECKING:
    from glint.serving.sources import Found, Source
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


class LastServed(Protocol):
    """What each NAME@ALIAS was when it last passed its self-test, for replicas to come."""

    def get(self, alias: str, /) -> Found | None:
        """None where nothing is known."""

    def __setitem__(self, alias: str, found: Found, /) -> None:
        """Remember it in the stead of what was."""


class LiveModel:
    """What a source means now. `current` is replaced as a whole; a request keeps what it began with, so none fails.

    Where an alias means what fails its self-test, the model begins with what `last_served` has of that alias: a replica
    that starts now serves what those beside it stay at. Raises GlintError where there is no such thing.
    """

    def __init__(self, source: Source, last_served: LastServed | None = None) -> None:
        self.source = source
        self._last_served = last_served if source.alias else None
        self._alias = f"{source.name}@{source.alias}"
        self.refused: str | None = None
        """the identity that was refused last"""
        found = source.find()
        try:
            self._take(found)
        except GlintError as error:
            earlier = self._last_served.get(self._alias) if self._last_served is not None else None
            if earlier is None or earlier.identity == found.identity:
                raise
            self._take(earlier)
            self._refuse(found.identity, error)

    def follow(self) -> str | None:
        """Serve what the source means now: `swapped` or `refused`, None where that is what is served or was refused.

        Raises GlintError, or an error of the registry's, where the source does not say.
        """
        found = self.source.find()
        if found.identity in (self.current.identity, self.refused):
            return None
        try:
            self._take(found)
        except GlintError as error:
            self._refuse(found.identity, error)
            return "refused"
        LOG.warning("%s is now %s", self.source.name, found.identity)
        return "swapped"

    def _take(self, found: Found) -> None:
        self.current = _load(found.identity, found.open)
        if self._last_served is not None:
            self._last_served[self._alias] = found

    def _refuse(self, identity: str, error: GlintError) -> None:
        self.refused = identity
        LOG.error("%s stays at %s: %s", self.source.name, self.current.identity, error)


def _load(identity: str, open_predictor: Callable[[], Predictor]) -> Loaded:
    """Open and try a model; raises GlintError when it does not see what training saw."""
    try:
        predictor = open_predictor()
    except (SafetensorError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise GlintError(f"model {identity} cannot be opened: {' '.join(str(error).split())[:300]}") from error
    result = run_selftest(predictor)
    if result and not result.passed:
        why = result.error or f"probabilities differ by {result.max_difference:.3g}, {result.tolerance:.3g} are allowed"
        raise GlintError(f"model {identity} fails its self-test: {why}")
    warm_up(predictor)
    return Loaded(identity, predictor, Explanations(predictor))
