"""What the HTTP API asks of the models behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, Protocol, TypeVar

from glint.core.outcome import ModelRef, Prediction

Answer = TypeVar("Answer")


async def together(asked: Iterable[Coroutine[Any, Any, Answer]]) -> list[Answer]:
    """What each gives, in order; where one raises, nobody waits for the others any more, and they end."""
    tasks = [asyncio.ensure_future(one) for one in asked]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


class Answering(Protocol):
    """The models behind the API; a name is NAME, NAME@ALIAS or NAME/VERSION, None means the first.

    Methods raise ProblemError 404 for what is not served.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """What a request may name, the default first."""

    def describe(self, name: str | None) -> tuple[ModelRef, tuple[str, ...]]:
        """A model and its classes."""

    def check_room(self, name: str | None) -> None:
        """Raise ProblemError 503 where an image that came now would wait for too long; to be asked once a request.

        The other methods refuse no image for the load.
        """

    async def classify(
        self, name: str | None, data: bytes, top_k: int, key: bytes | None
    ) -> tuple[Prediction, ModelRef, dict[str, float]]:
        """An encoded image's prediction, the model's and the milliseconds of each stage; raises ImageError.

        What has the same `key`, by default the same image, falls to the same side of a canary.
        """

    async def explain(self, name: str | None, model: ModelRef, data: bytes, label: str) -> str | None:
        """A PNG in base64 of where the model that answered looked."""

    async def probabilities(
        self, name: str | None, data: bytes, key: bytes | None
    ) -> tuple[Prediction, ModelRef, list[float]]:
        """An image's prediction and the probability of each class; raises ImageError."""

    def metrics(self) -> bytes:
        """Counters, as Prometheus reads them."""
