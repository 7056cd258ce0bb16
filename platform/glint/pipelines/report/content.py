"""What a report says: scores as words and rows, so that the template only lays them out."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import unquote

from glint.core.metrics import Scores
from glint.core.outcome import ModelRef


@dataclass(frozen=True)
class ClassRow:
    """One class of the table: shares in 0..1, None where no image allows a judgement."""

    name: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int


@dataclass(frozen=True)
class Confusion:
    """Images of the class `truth` that were taken for `guess`."""

    truth: str
    guess: str
    count: int


@dataclass(frozen=True)
class Summary:
    """What to know first: the class that is missed most often, and the most frequent mistake; None without mistakes."""

    num_correct: int
    weakest: ClassRow | None
    confusion: Confusion | None


def class_rows(scores: Scores) -> list[ClassRow]:
    """One row for each class, in class order."""
    num_predicted = [sum(column) for column in zip(*scores.confusion_matrix, strict=True)]
    return [_class_row(scores, name, num_predicted[i]) for i, name in enumerate(scores.classes)]


def summary(scores: Scores) -> Summary:
    """The figures of the opening paragraph."""
    matrix, names = scores.confusion_matrix, scores.classes
    num_correct = sum(row[i] for i, row in enumerate(matrix))
    if num_correct == scores.num_images:
        return Summary(num_correct, None, None)
    judged = [row for row in class_rows(scores) if row.recall is not None]
    weakest = min(judged, key=lambda row: (row.recall or 0.0, -row.support))
    wrong = [(matrix[i][j], i, j) for i in range(len(names)) for j in range(len(names)) if i != j]
    count, truth, guess = max(wrong, key=lambda cell: cell[0])
    return Summary(num_correct, weakest, Confusion(names[truth], names[guess], count))


def percent(share: float | None, digits: int = 1) -> str:
    """A share in 0..1 as a percentage. Neither 0 % nor 100 % is claimed for what only rounds to it."""
    if share is None:
        return "–"
    text, least = f"{share:.{digits}%}", 10.0**-digits
    if share < 1 and text == f"{1:.{digits}%}":
        return f">{100 - least:.{digits}f}%"
    if share > 0 and text == f"{0:.{digits}%}":
        return f"<{least:.{digits}f}%"
    return text


def model_name(model: ModelRef) -> str:
    """The model as its users call it."""
    if model.name is None:
        return f"Bundle {model.bundle[:12]}"
    return f"{model.name}, version {model.version}" if model.version else model.name


def file_name(uri: str) -> str:
    """The last part of an address, as a person would write it: only file:// addresses are percent-encoded."""
    path = unquote(uri) if uri.startswith("file://") else uri
    return posixpath.basename(path.rstrip("/")) or uri


def date(moment: datetime) -> str:
    """Day and minute, in UTC."""
    utc = moment.astimezone(UTC)
    return f"{utc.day} {utc:%B %Y, %H:%M} UTC"


def words(reason: str) -> str:
    """A snake_case reason, such as not_an_image, as words."""
    return reason.replace("_", " ")


def _class_row(scores: Scores, name: str, num_predicted: int) -> ClassRow:
    score = scores.per_class[name]
    return ClassRow(
        name=name,
        precision=score.precision if num_predicted else None,
        recall=score.recall if score.support else None,
        f1=score.f1 if num_predicted or score.support else None,
        support=score.support,
    )
