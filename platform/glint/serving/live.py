"""A served model that follows its alias: swapped in place, and never for a worse reader."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from safetensors import SafetensorError

from glint.core.errors import GlintError, one_line
from glint.core.outcome import Prediction
from glint.serving.classifier import Classifier, warm_up
from glint.serving.explanations import Explanations
from glint.vision.selftest import run_selftest

if TYPE_CHECKING:
    from glint.serving.sources import Found, Source
    from glint.vision.predictor import Predictor

LOG = logging.getLogger("glint.serving")
RETRY_S = 600
"""After which a version that was refused is tried again."""
KEPT_S = 60
"""For which, and until the next look, a version that was swapped away still answers requests that name it."""


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

    found: Found
    predictor: Predictor
    explanations: Explanations

    @property
    def identity(self) -> str:
        """Of the version and its policy."""
        return self.found.identity

    async def answer(self, classifier: Classifier, data: bytes, top_k: int | None) -> Answered:
        """An encoded image's answer, `top_k` None for all classes; raises as Classifier.classify does."""
        wanted = len(self.predictor.classes) if top_k is None else top_k
        prediction, timings_ms = await classifier.classify(self.predictor, data, wanted)
        return Answered(prediction, self.predictor, timings_ms)


class Memory(Protocol):
    """What replicas tell those to come: what each NAME@ALIAS was when it last passed its self-test, and what hung."""

    def get(self, key: str, /) -> Found | None:
        """None where nothing is known."""

    def __setitem__(self, key: str, found: Found, /) -> None:
        """Remember it in the stead of what was."""


@dataclass(frozen=True)
class Refused:
    """What could not be served; it is left alone for a while, for the machine may have been at fault."""

    identity: str
    at_s: float = field(default_factory=monotonic)

    def holds(self, identity: str) -> bool:
        """Whether that is what was refused, less than RETRY_S ago."""
        return identity == self.identity and monotonic() - self.at_s < RETRY_S


class LiveModel:
    """What a source means now. `current` is replaced as a whole; a request keeps what it began with, so none fails.

    Where an alias means what fails its self-test, the model begins with what `memory` has of that alias: a replica that
    starts now serves what those beside it stay at. Raises GlintError where there is no such thing.
    """

    def __init__(self, source: Source, memory: Memory | None = None) -> None:
        self.source = source
        self._memory = memory if source.alias else None
        self._alias = f"{source.name}@{source.alias}"
        self.refused: Refused | None = None
        """what was refused last"""
        self.before: Loaded | None = None
        """what `current` was not long ago"""
        self._swapped_s = 0.0
        found = source.find()
        try:
            self._take(found)
        except GlintError as error:
            earlier = self._memory.get(self._alias) if self._memory is not None else None
            if earlier is None or earlier.identity == found.identity:
                raise
            self._take(earlier)
            self._refuse(found.identity, error)

    def follow(self) -> str | None:
        """Serve what the source means now: `swapped` or `refused`, None where it is served or was refused not long ago.

        Raises GlintError, or an error of the registry's, where the source does not say.
        """
        if monotonic() - self._swapped_s > KEPT_S:
            self.before = None
        found = self.source.find()
        if found.identity == self.current.identity or (self.refused and self.refused.holds(found.identity)):
            return None
        self.before = None  # two are held in memory, and not three
        try:
            self._take(found, self.current)
        except GlintError as error:
            self._refuse(found.identity, error)
            return "refused"
        LOG.warning("%s is now %s", self.source.name, found.identity)
        return "swapped"

    def _take(self, found: Found, before: Loaded | None = None) -> None:
        loaded = _load(found)
        self.before, self._swapped_s = before, monotonic()
        self.current = loaded
        if self._memory is not None:
            self._memory[self._alias] = found

    def _refuse(self, identity: str, error: GlintError) -> None:
        self.refused = Refused(identity)
        LOG.error("%s stays at %s: %s", self.source.name, self.current.identity, error)


def _load(found: Found) -> Loaded:
    """Open and try a model; raises GlintError when it cannot be opened or does not see what training saw."""
    try:
        predictor = found.open()
        result = run_selftest(predictor)
        warm_up(predictor)
    except (SafetensorError, RuntimeError, OSError) as error:  # damaged or missing files, an engine, memory
        raise GlintError(f"model {found.identity} cannot be served: {one_line(error)}") from error
    if result and not result.passed:
        why = result.error or f"probabilities differ by {result.max_difference:.3g}, {result.tolerance:.3g} are allowed"
        raise GlintError(f"model {found.identity} fails its self-test: {why}")
    return Loaded(found, predictor, Explanations(predictor))
