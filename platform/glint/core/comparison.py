"""One model against another on the same images: differences with paired intervals."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from glint.core.bootstrap import Bootstrap
from glint.core.intervals import Interval
from glint.core.metrics import Scores
from glint.core.outcome import ModelRef

Array = np.ndarray[Any, np.dtype[Any]]


class Judged(NamedTuple):
    """The images (N,) that a score is of, those that only the other model gets right, and those that only this one."""

    whole: Array
    lost: Array
    gained: Array


class Difference(BaseModel):
    """A score of the model, of the one it is compared with, and the interval of model minus other."""

    model_config = ConfigDict(frozen=True)

    model: float
    against: float
    interval: Interval | None
    lost: int = Field(description="images of those judged that only the other gets right")

    @property
    def difference(self) -> float:
        """Above 0 where the model is better."""
        return self.model - self.against


class Comparison(BaseModel):
    """How a model does against another, such as the champion, on the images that both could score."""

    model_config = ConfigDict(frozen=True)

    against: ModelRef
    num_images: int
    both_right: int
    only_model_right: int
    only_against_right: int
    both_wrong: int
    scores: dict[str, Difference] = Field(description="of the scores over all classes")
    recall: dict[str, Difference] = Field(description="of the classes that have images")
    rare: tuple[str, ...] = Field(default=(), description="classes in too few groups for an interval of macro-F1")


def comparison(
    against: ModelRef,
    targets: Array,
    predicted: tuple[Array, Array],
    scores: tuple[Scores, Scores],
    drawn: Bootstrap | None,
) -> Comparison:
    """Compare what a model and another (in that order) predict for the same images.

    targets and predicted: class indices (N,), or 0/1 (N, C); `scores` are those of the two on these images.
    """
    right, right_against = (_right(targets, guess) for guess in predicted)
    mine, other = scores
    paired, rare = _intervals(targets, predicted, mine.classes, drawn)
    every = Judged(np.ones(len(targets), dtype=bool), right_against & ~right, right & ~right_against)
    names = [name for name in ("accuracy", "macro_f1", "micro_f1") if name in mine.summary()]
    return Comparison(
        against=against,
        num_images=len(targets),
        both_right=int((right & right_against).sum()),
        only_model_right=int((right & ~right_against).sum()),
        only_against_right=int((~right & right_against).sum()),
        both_wrong=int((~right & ~right_against).sum()),
        scores={
            name: _difference(mine.summary()[name], other.summary()[name], paired.get(name), every, drawn)
            for name in names
        },
        recall={
            name: _difference(
                score.recall,
                other.per_class[name].recall,
                paired.get(f"recall {name}"),
                _of_class(targets, predicted, i),
                drawn,
            )
            for i, (name, score) in enumerate(mine.per_class.items())
            if score.support
        },
        rare=rare,
    )


def _intervals(
    targets: Array, predicted: tuple[Array, Array], classes: tuple[str, ...], drawn: Bootstrap | None
) -> tuple[dict[str, Interval | None], tuple[str, ...]]:
    """By score, and the classes in too few groups for one of macro-F1."""
    if drawn is None:
        return {}, ()
    model, against = (drawn.tallies(targets, guess, len(classes)) for guess in predicted)
    right, right_against = (_right(targets, guess) for guess in predicted)
    found = drawn.differences(against, model)
    intervals = {
        "accuracy": drawn.difference_of_shares(right_against, right),
        "macro_f1": found.macro_f1,
        "micro_f1": found.micro_f1,
        **{f"recall {name}": one for name, one in zip(classes, found.recall, strict=True)},
    }
    return intervals, tuple(classes[label] for label in found.rare)


def _of_class(targets: Array, predicted: tuple[Array, Array], label: int) -> Judged:
    """The images of a class, found by the one model or the other."""
    whole, mine, other = (side[:, label] == 1 if side.ndim == 2 else side == label for side in (targets, *predicted))
    return Judged(whole, whole & other & ~mine, whole & mine & ~other)


def _difference(
    model: float, against: float, found: Interval | None, judged: Judged, drawn: Bootstrap | None
) -> Difference:
    interval = drawn.allowing_for_the_unseen(found, *judged) if drawn and found else None
    return Difference(model=model, against=against, interval=interval, lost=int(judged.lost.sum()))


def _right(targets: Array, predicted: Array) -> Array:
    """Whether each image is right (N,); with several labels, in all of them."""
    same: Array = np.equal(targets, predicted)
    return np.asarray(same.all(1) if same.ndim == 2 else same)
