"""What the online API answers, as its servers write it and its clients read it."""

from __future__ import annotations

from pydantic import BaseModel, Field

from glint.core.outcome import Decision, ModelRef, OutcomeError, Prediction, Score


class Classification(BaseModel):
    """The answer for one image."""

    label: str | None = Field(description="the most probable class; null where the image has none of the classes")
    labels: tuple[str, ...] = Field(description="all classes that the image has: one, unless the model gives several")
    confidence: float = Field(ge=0, le=1, description="how sure the model is of that")
    top_k: tuple[Score, ...] = Field(description="the most probable classes, best first")
    decision: Decision = Field(description="what the model's policy makes of it; review: a person should look")
    model: ModelRef
    explanation: str | None = Field(
        default=None, description="where asked for: a PNG in base64, the image with what spoke for the label over it"
    )


class Result(BaseModel):
    """What became of one image of several: a classification, or an error."""

    name: str | None = Field(description="the file's name or the image's address, where it has one")
    classification: Classification | None
    error: OutcomeError | None


class Classifications(BaseModel):
    """The answer for several images, in their order."""

    results: tuple[Result, ...]


class Served(BaseModel):
    """What this server answers with, and what it takes."""

    model: ModelRef
    classes: tuple[str, ...]
    max_bytes: int = Field(description="larger bodies are refused with 413")
    models: tuple[str, ...] = Field(default=(), description="the names that `model` may be")


def classification(prediction: Prediction, model: ModelRef, explanation: str | None = None) -> Classification:
    """The answer that a prediction of status `ok` makes."""
    assert prediction.confidence is not None, "only an image that was classified gets here"
    assert prediction.decision is not None
    return Classification(
        label=prediction.label,
        labels=prediction.labels,
        confidence=prediction.confidence,
        top_k=prediction.top_k,
        decision=prediction.decision,
        model=model,
        explanation=explanation,
    )
