"""The models that a replica serves by name, each following its alias, some with a challenger."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter
from typing import TYPE_CHECKING

from glint.core.errors import GlintError, ImageError
from glint.core.outcome import ModelRef, Prediction
from glint.serving.contest import CHALLENGER, CHAMPION, Contest
from glint.serving.live import Answered, LiveModel, Loaded, Memory
from glint.serving.problems import ProblemError

if TYPE_CHECKING:
    from glint.serving.classifier import Classifier
    from glint.serving.metrics import Metrics
    from glint.serving.sources import Source

LOG = logging.getLogger("glint.serving")
ADDRESS = re.compile("0x[0-9a-f]+")
"""Of an object, as the texts of some errors have it: another one each time."""


class Models:
    """Answers for several models by name, on the threads of one classifier.

    A request may name NAME, or one side of it as NAME@ALIAS or NAME/VERSION. Raises GlintError for a model that fails
    its self-test, unless it has an alias of which `memory` knows better; a challenger that fails is left out.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        classifier: Classifier,
        metrics: Metrics,
        memory: Memory | None = None,
    ) -> None:
        self._classifier, self._metrics = classifier, metrics
        self._told: dict[tuple[str, str], str] = {}
        """why sides cannot be followed, as it was logged"""
        self._live = {source.name: LiveModel(source, memory) for source in sources}
        self._contests = {
            source.name: Contest(self._live[source.name], source.challenge, classifier, metrics, memory)
            for source in sources
            if source.challenge
        }
        for name, live in self._live.items():
            if live.refused:
                metrics.swap(name, CHAMPION, "refused")
        for name, contest in self._contests.items():
            self._followed(name, CHALLENGER, contest.open)
        for name, role, live in self._sides():
            metrics.serves(name, role, live.current.predictor.model)

    @property
    def names(self) -> tuple[str, ...]:
        """What a request may name: the models, the default first, then their sides by alias and by version."""
        sides = [
            side
            for name, _, live in self._sides()
            for side in (_by_alias(name, live), _by_version(name, live.current))
            if side
        ]
        return tuple(dict.fromkeys([*self._live, *sides]))

    def describe(self, name: str | None) -> tuple[ModelRef, tuple[str, ...]]:
        """A model and its classes; raises ProblemError 404 for an unknown name."""
        predictor = self._named(name)[1].predictor
        return predictor.model, predictor.classes

    def check_room(self, name: str | None) -> None:
        """Raise ProblemError 503 where an image that came now would wait for too long, and count that."""
        try:
            self._classifier.admission.check()
        except ProblemError as problem:
            self._metrics.image(self._named(name)[0], problem.reason)
            raise

    async def classify(
        self, name: str | None, data: bytes, top_k: int, key: bytes | None = None
    ) -> tuple[Prediction, ModelRef, dict[str, float]]:
        """An image's prediction, the model that made it, and the milliseconds of each stage; raises ImageError.

        What has the same `key`, by default the same image, falls to the same side of a canary.
        """
        answered = await self._counted(name, data, top_k, key)
        return answered.prediction, answered.predictor.model, answered.timings_ms

    async def probabilities(
        self, name: str | None, data: bytes, key: bytes | None = None
    ) -> tuple[Prediction, ModelRef, list[float]]:
        """An image's prediction and the probability of each class, in the order of the classes."""
        answered = await self._counted(name, data, None, key)
        shares = {score.label: score.confidence for score in answered.prediction.top_k}
        return answered.prediction, answered.predictor.model, [shares[label] for label in answered.predictor.classes]

    async def explain(self, name: str | None, model: ModelRef, data: bytes, label: str) -> str | None:
        """A PNG in base64 of where the model that answered looked; None where that cannot be told."""
        plain, loaded = self._named(name)
        sides = [live for other, _, live in self._sides() if other == plain]
        known = [*(live.current for live in sides), *(before for live in sides if (before := live.before))]
        loaded = next((one for one in known if one.predictor.model == model), loaded)
        explain, turn = loaded.explanations.explain, loaded.explanations.turn
        return await self._classifier.run(explain, data, label, turn=turn)

    async def _counted(self, name: str | None, data: bytes, top_k: int | None, key: bytes | None) -> Answered:
        plain, loaded = self._named(name)
        contest = self._contests.get(plain) if name in (None, plain) else None
        began, outcome = perf_counter(), "error"
        self._metrics.pending.inc()
        try:
            if contest:
                answered = await contest.answer(data, top_k, key)
            else:
                answered = await loaded.answer(self._classifier, data, top_k)
            outcome = "ok"
            return answered
        except ImageError as error:
            outcome = error.type
            raise
        finally:
            self._metrics.pending.dec()
            self._metrics.image(plain, outcome, perf_counter() - began)

    def metrics(self) -> bytes:
        """What replicas have counted, as Prometheus reads it."""
        return self._metrics.text()

    def check(self) -> None:
        """Stop trying challengers that hang."""
        for contest in self._contests.values():
            contest.check()

    def follow(self) -> None:
        """Let each model follow its alias once. What goes wrong leaves it as it is, and is counted and logged."""
        for name, live in self._live.items():
            contest = self._contests.get(name)
            if self._followed(name, CHAMPION, live.follow) == "swapped" and contest:
                self._followed(name, CHALLENGER, contest.begin)
            if contest:
                self._followed(name, CHALLENGER, contest.follow)
        for name, role, live in self._sides():
            self._metrics.serves(name, role, live.current.predictor.model)

    def _followed(self, name: str, role: str, follow: Callable[[], str | None]) -> str | None:
        """What `follow` made of a side, `failed` where it raised; counted."""
        told = self._told.pop((name, role), None)
        try:
            result = follow()
        except Exception as error:
            result, known = "failed", isinstance(error, (GlintError, OSError))
            self._told[name, role] = why = ADDRESS.sub("", repr(error))
            if why != told:  # once, and not at each look
                LOG.error("%s: the alias of its %s cannot be followed: %s", name, role, error, exc_info=not known)
        if result:
            self._metrics.swap(name, role, result)
        return result

    def _sides(self) -> Iterator[tuple[str, str, LiveModel]]:
        for name, live in self._live.items():
            yield name, CHAMPION, live
            if (contest := self._contests.get(name)) and contest.challenger:
                yield name, CHALLENGER, contest.challenger

    def _named(self, name: str | None) -> tuple[str, Loaded]:
        """The plain name of what a request names, and what answers for that."""
        if name is None or name in self._live:
            plain = next(iter(self._live)) if name is None else name
            return plain, self._live[plain].current
        for plain, _, live in self._sides():
            if name in (_by_alias(plain, live), _by_version(plain, live.current)):
                return plain, live.current
        for plain, _, live in self._sides():
            if (before := live.before) and name == _by_version(plain, before):
                return plain, before
        choices = ", ".join(self.names)
        raise ProblemError(404, "unknown_model", f"model {name[:100]!r} is not served; there are: {choices}")


def _by_alias(name: str, live: LiveModel) -> str | None:
    return f"{name}@{live.source.alias}" if live.source.alias else None


def _by_version(name: str, loaded: Loaded) -> str | None:
    version = loaded.predictor.model.version
    return f"{name}/{version}" if version else None
