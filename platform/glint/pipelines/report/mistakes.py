"""The mistakes that a model was surest of, and the labels that are probably wrong, with their pictures."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from glint.adapters.images import Images
from glint.pipelines.report.content import file_name
from glint.pipelines.report.thumbnails import Thumbnail, thumbnails
from glint.vision.explain import Explainer

if TYPE_CHECKING:
    from glint.pipelines.evaluation import Evaluation, ScoredSplit

Array = np.ndarray[Any, np.dtype[Any]]

MAX_SHOWN = 24
MAX_SUSPECTS_SHOWN = 12
MAX_PAIRS = 5
NO_LABEL = "none of the classes"


@dataclass(frozen=True)
class Mistake:
    """One wrongly labelled image: what the model took it for, how sure it was, and what it is labelled."""

    uri: str
    name: str
    truth: str
    guess: str
    confidence: float
    thumbnail: Thumbnail


@dataclass(frozen=True)
class Suspect:
    """One image whose label is doubted."""

    uri: str
    name: str
    given: str
    suggested: str
    thumbnail: Thumbnail


def most_confident_mistakes(
    scored: ScoredSplit,
    classes: tuple[str, ...],
    images: Images,
    explainer: Explainer | None = None,
    limit: int = MAX_SHOWN,
) -> list[Mistake]:
    """Up to `limit` mistakes, the surest first; only their images are read. Explained is the class wrongly seen."""
    label, confidence = _surest_error(scored)
    wrong = np.flatnonzero(~scored.correct)
    chosen = wrong[np.argsort(-confidence[wrong], kind="stable")][:limit].tolist()
    pictures = thumbnails(images, [scored.uris[i] for i in chosen], explainer, [int(label[i]) for i in chosen])
    return [
        Mistake(
            uri=scored.uris[i],
            name=file_name(scored.uris[i]),
            truth=_named(scored.targets[i], classes),
            guess=_named(scored.predicted[i], classes),
            confidence=float(confidence[i]),
            thumbnail=picture,
        )
        for i, picture in zip(chosen, pictures, strict=True)
    ]


def suspects(evaluation: Evaluation, images: Images, limit: int = MAX_SUSPECTS_SHOWN) -> list[Suspect]:
    """The likeliest label errors with their pictures."""
    chosen = evaluation.label_errors[:limit]
    pictures = thumbnails(images, [one.uri for one in chosen])
    return [
        Suspect(one.uri, file_name(one.uri), one.given, one.suggested, picture)
        for one, picture in zip(chosen, pictures, strict=True)
    ]


def suspected_pairs(evaluation: Evaluation) -> list[tuple[str, str, int]]:
    """What is most often labelled as one thing and looks like another: (given, suggested, images)."""
    pairs = Counter((one.given, one.suggested) for one in evaluation.label_errors)
    return [(given, suggested, count) for (given, suggested), count in pairs.most_common(MAX_PAIRS)]


def _surest_error(scored: ScoredSplit) -> tuple[Array, Array]:
    """The class that each image was wrongly given (of several labels, or not given) most surely, and how surely."""
    if not scored.multi_label:
        return scored.predicted, scored.confidence
    shares = scored.probabilities
    sure = np.where(scored.predicted != scored.targets, np.maximum(shares, 1 - shares), 0)
    return sure.argmax(1), sure.max(1)


def _named(labels: Any, classes: tuple[str, ...]) -> str:
    if np.ndim(labels) == 0:
        return classes[int(labels)]
    return ", ".join(classes[i] for i in np.flatnonzero(labels)) or NO_LABEL
