"""What a report says: scores as words and rows, so that the template only lays them out."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import unquote

from glint.core.bootstrap import MIN_AVERAGED_GROUPS, ClassIntervals
from glint.core.comparison import Comparison, Difference
from glint.core.intervals import Interval
from glint.core.metrics import Scores
from glint.core.outcome import ModelRef

if TYPE_CHECKING:
    from glint.pipelines.evaluation import Evaluation

SCORE_NAMES = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "macro_f1": "Macro-F1",
    "micro_f1": "Micro-F1",
    "mean_average_precision": "Mean average precision",
}


@dataclass(frozen=True)
class ClassRow:
    """One class of the table: shares in 0..1, None where no image allows a judgement."""

    name: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int
    intervals: ClassIntervals


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


@dataclass(frozen=True)
class DifferenceRow:
    """A score of two models; places on an axis about 0, in percent of its width, for drawing."""

    name: str
    values: Difference
    place: float
    low: float | None
    high: float | None

    @property
    def telling(self) -> bool:
        """Whether its interval lies wholly on one side of 0."""
        found = self.values.interval
        return found is not None and (found.low > 0 or found.high < 0)


def class_rows(scores: Scores, intervals: dict[str, ClassIntervals] | None = None) -> list[ClassRow]:
    """One row for each class, in class order."""
    return [
        ClassRow(
            name=name,
            precision=score.precision if score.given else None,
            recall=score.recall if score.support else None,
            f1=score.f1 if score.given or score.support else None,
            support=score.support,
            intervals=(intervals or {}).get(name, ClassIntervals()),
        )
        for name, score in scores.per_class.items()
    ]


def summary(scores: Scores) -> Summary:
    """The figures of the opening paragraph."""
    num_correct = round(scores.accuracy * scores.num_images)
    judged = [row for row in class_rows(scores) if row.recall is not None]
    if num_correct == scores.num_images or not judged:
        return Summary(num_correct, None, None)
    weakest = min(judged, key=lambda row: (row.recall or 0.0, -row.support))
    return Summary(num_correct, weakest, _worst_confusion(scores))


def _worst_confusion(scores: Scores) -> Confusion | None:
    matrix, names = scores.confusion_matrix, scores.classes
    wrong = [(matrix[i][j], i, j) for i in range(len(matrix)) for j in range(len(matrix)) if i != j]
    count, truth, guess = max(wrong, key=lambda cell: cell[0], default=(0, 0, 0))
    return Confusion(names[truth], names[guess], count) if count else None


def difference_rows(found: Comparison) -> list[DifferenceRow]:
    """The scores over all classes, then the recall of each class, on one axis."""
    named = {SCORE_NAMES[name]: values for name, values in found.scores.items()}
    named |= {f"Recall of {name}": values for name, values in found.recall.items()}
    reach = max([0.01, *(abs(edge) for values in named.values() for edge in _edges(values))])

    def place(value: float) -> float:
        return 50 + 50 * value / reach

    return [
        DifferenceRow(
            name,
            values,
            place(values.difference),
            place(values.interval.low) if values.interval else None,
            place(values.interval.high) if values.interval else None,
        )
        for name, values in named.items()
    ]


def _edges(values: Difference) -> tuple[float, ...]:
    return (values.difference, *((values.interval.low, values.interval.high) if values.interval else ()))


def verdict(found: Comparison) -> str:
    """What the paired interval of macro-F1 allows to say."""
    values = found.scores["macro_f1"]
    if values.interval is None:
        return "There are too few groups to say whether the difference is more than luck."
    if values.interval.low > 0:
        return "In macro-F1 this model is better by more than luck would explain."
    if values.interval.high < 0:
        return "In macro-F1 this model is worse by more than luck would explain."
    return "The difference in macro-F1 may be luck: its interval holds 0."


def resampled(evaluation: Evaluation) -> str:
    """What the intervals of the page are made of, or why there are none."""
    found = evaluation.resampling
    if found.column is None:
        return f"No intervals are given: {found.note}."
    text = (
        f"Intervals are 95 % ones: where the figure may lie if chance had dealt other images of the same kind "
        f"({found.replicates:,} bootstrap resamples of the {found.num_groups:,} values of {found.column}; where all or "
        "none are right, the exact binomial interval with each value counted once)."
    )
    if evaluation.intervals and evaluation.intervals.macro_f1 is None:
        text += f" Averages over the classes have none: a class is seen in fewer than {MIN_AVERAGED_GROUPS} of these."
    if found.note is None:
        return text
    return (
        f"{text} They go by {found.column} because {found.note}; so far as images of one group resemble each other, "
        "they are narrower than they should be."
    )


def span(found: Interval | None, digits: int = 1) -> str:
    """An interval of shares, such as 91.2% to 97.0%."""
    return f"{percent(found.low, digits)} to {percent(found.high, digits)}" if found else ""


def points(difference: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    return f"{100 * difference:+.1f}".replace("-", "\N{MINUS SIGN}")


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
