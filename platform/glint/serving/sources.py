"""Where a served model comes from: found anew whenever a server looks whether its alias has moved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
