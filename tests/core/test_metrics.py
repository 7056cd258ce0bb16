import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from glint.core.metrics import classification_scores

CLASSES = ("copper", "good", "open", "short")


def test_scores_are_those_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    truth, guess = random.integers(0, 4, 200), random.integers(0, 4, 200)
    scores = classification_scores(truth, guess, CLASSES)
    assert scores.accuracy == pytest.approx(accuracy_score(truth, guess))
    assert scores.balanced_accuracy == pytest.approx(balanced_accuracy_score(truth, guess))
    assert scores.macro_f1 == pytest.approx(f1_score(truth, guess, average="macro"))
    assert sum(score.support for score in scores.per_class.values()) == 200


def test_a_class_that_no_image_has_or_was_given_does_not_pull_the_averages_down() -> None:
    scores = classification_scores([0, 1, 0, 1], [0, 1, 0, 1], CLASSES)
    assert (scores.macro_f1, scores.balanced_accuracy) == (1.0, 1.0)
    assert scores.per_class["short"].support == 0


def test_a_class_that_was_only_guessed_counts_against_macro_f1() -> None:
    scores = classification_scores([0, 0, 1], [0, 2, 1], CLASSES)
    assert scores.macro_f1 == pytest.approx((2 / 3 + 1 + 0) / 3)


def test_rows_of_the_confusion_matrix_are_true_classes() -> None:
    matrix = classification_scores([0, 0, 1], [0, 2, 1], CLASSES).confusion_matrix
    assert matrix == [[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
