"""From probabilities to a decision: accept, review or reject."""

from __future__ import annotations

import hashlib

from pydantic import BaseModel, ConfigDict, Field

from glint.core.errors import GlintError
from glint.core.outcome import Decision


class Policy(BaseModel):
    """Doubtful images go to a person; of the rest, the accepted classes pass and the others are rejected.

    Kept beside the bundle with a digest of its own: changing it needs no new training.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    review_below: float = Field(default=0.5, ge=0, le=1, description="confidence under which a person looks")
    accept_classes: tuple[str, ...] | None = Field(default=None, description="classes that pass; none named = all")

    def decide(self, label: str, confidence: float) -> Decision:
        """The decision for an image whose most probable class is `label`."""
        if confidence < self.review_below:
            return "review"
        return "accept" if self.accept_classes is None or label in self.accept_classes else "reject"

    def check(self, classes: tuple[str, ...]) -> None:
        """Raise GlintError when an accepted class is none of the model's."""
        unknown = sorted(set(self.accept_classes or ()) - set(classes))
        if unknown:
            raise GlintError(f"policy.accept_classes names {unknown}, which are not among the classes {list(classes)}")

    @property
    def digest(self) -> str:
        """What identifies this policy in an outcome."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]
