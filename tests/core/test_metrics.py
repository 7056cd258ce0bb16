import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    roc_auc_score,
)

from glint.core.metrics import average_precisions, classification_scores, multi_label_scores, roc_areas

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


def test_scores_of_several_labels_an_image_are_those_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    truth = (random.random((200, 4)) < 0.3).astype(np.float32)
    probabilities = np.clip(0.5 * truth + 0.7 * random.random((200, 4)), 0, 1)
    guess = probabilities >= 0.5
    scores = multi_label_scores(truth, probabilities, CLASSES)
    assert scores.task == "multi"
    assert scores.accuracy == pytest.approx(accuracy_score(truth, guess))
    assert scores.macro_f1 == pytest.approx(f1_score(truth, guess, average="macro"))
    assert scores.micro_f1 == pytest.approx(f1_score(truth, guess, average="micro"))
    assert scores.mean_average_precision == pytest.approx(average_precision_score(truth, probabilities))
    assert scores.per_class["good"].support == truth[:, 1].sum()
    assert scores.confusion_matrix == []
    assert {"micro_f1", "mean_average_precision"} <= scores.summary().keys()


def test_images_may_have_none_of_several_labels() -> None:
    scores = multi_label_scores(np.zeros((3, 4)), np.full((3, 4), 0.1), CLASSES)
    assert (scores.accuracy, scores.macro_f1, scores.mean_average_precision) == (1.0, 0.0, None)


def test_areas_under_the_curves_are_one_class_against_the_rest() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 3, 100)
    probabilities = random.dirichlet(np.ones(4), size=100) + np.eye(4)[truth] * 0.3
    precisions, areas = average_precisions(truth, probabilities), roc_areas(truth, probabilities)
    for i in range(3):
        assert precisions[i] == pytest.approx(average_precision_score(truth == i, probabilities[:, i]))
        assert areas[i] == pytest.approx(roc_auc_score(truth == i, probabilities[:, i]))
    assert (precisions[3], areas[3]) == (None, None)
