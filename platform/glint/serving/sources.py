"""Where a served model comes from: found anew whenever a server looks whether its alias has moved."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from glint.core.errors import GlintError

if TYPE_CHECKING:
    from glint.vision.predictor import Predictor


@dataclass(frozen=True)
class Found:
    """What a source means now; `identity` changes with the version and with its policy."""

    identity: str
    open: Callable[[], Predictor]


@dataclass(frozen=True)
class Source:
    """A model's name in requests, and a function, picklable, that says what that means now."""

    name: str
    find: Callable[[], Found]
    alias: str | None = None
    """of the registry, where the model was named by one"""
    challenge: Challenge | None = None


@dataclass(frozen=True)
class Challenge:
    """A model that is tried on the requests of another of its name, and when that has to end."""

    source: Source
    canary: float = 0.0
    """share of the images that the challenger answers"""
    shadow: float = 0.0
    """share of the images that the other side scores too, to compare; callers notice nothing of it"""
    max_errors: float = 0.02
    """share of its latest images that it may fail on"""
    max_slowdown: float = 2.0
    """its median work on an image, in the champion's"""


def by_name(models: Iterable[tuple[str, Source]]) -> dict[str, Source]:
    """Models by their names in requests; raises GlintError for two of one name, citing the URI that came with it."""
    sources: dict[str, Source] = {}
    for uri, source in models:
        if source.name in sources:
            reason = f"is the second of the name {source.name}; requests could not tell them apart"
            raise GlintError(f"--model {uri!r} {reason}")
        sources[source.name] = source
    return sources


def with_challengers(
    champions: Mapping[str, Source],
    challengers: Iterable[tuple[str, Source]],
    challenge: Callable[[Source], Challenge],
) -> dict[str, Source]:
    """The champions, those tried by a challenger of their name; raises GlintError for a challenger of none."""
    sources = dict(champions)
    for uri, source in challengers:
        champion = sources.get(source.name)
        if champion is None or champion.challenge:
            choices = ", ".join(name for name, one in sources.items() if not one.challenge) or "none"
            raise GlintError(f"--challenger {uri!r} is of the name {source.name}; models without one are: {choices}")
        sources[source.name] = replace(champion, challenge=challenge(source))
    return sources
