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
