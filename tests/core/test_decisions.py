import numpy as np
import pytest

from glint.core.bootstrap import Bootstrap
from glint.core.decisions import decisions
from glint.core.intervals import resample
from glint.core.policy import Policy

CLASSES = ("good", "open", "short")
POLICY = Policy(review_below=0.6, accept_classes=("good",))


def rows(answers: list[tuple[int, float]]) -> np.ndarray:
    found = np.array([[(1 - p) / 2] * 3 for _, p in answers])
    found[np.arange(len(answers)), [label for label, _ in answers]] = [p for _, p in answers]
    return found


def test_images_are_counted_by_class_and_decision() -> None:
    probabilities = rows([(0, 0.9), (0, 0.5), (1, 0.9), (0, 0.9), (2, 0.9), (1, 0.4)])
    found = decisions(POLICY, probabilities, np.array([0, 0, 0, 1, 2, 2]), CLASSES, None)
    assert found.counts == {"accept": 2, "review": 2, "reject": 2}
    assert found.by_class["open"] == {"accept": 1, "review": 0, "reject": 0}
    assert (found.escape_rate, found.false_reject_rate) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert found.review_share == pytest.approx(1 / 3)
    assert found.escape_interval is None
    assert found.thresholds == dict.fromkeys(CLASSES, 0.6)


def test_rates_have_intervals_where_groups_allow() -> None:
    random = np.random.default_rng(0)
    targets = random.integers(0, 3, 600)
    guess = np.where(random.random(600) < 0.2, 0, targets)
    drawn = Bootstrap(np.arange(600) % 60, resample(60))
    found = decisions(POLICY, rows([(int(label), 0.9) for label in guess]), targets, CLASSES, drawn)
    assert found.escape_rate is not None
    assert found.escape_interval is not None
    assert found.escape_interval.low < found.escape_rate < found.escape_interval.high
    assert found.review_interval is not None
    assert (found.review_interval.low, found.review_share) == (0, 0)
    assert 0 < found.review_interval.high < 0.1


def test_nothing_escapes_where_every_class_passes() -> None:
    found = decisions(Policy(), rows([(0, 0.9), (1, 0.9)]), np.array([0, 1]), CLASSES, None)
    assert found.escape_rate is None
    assert found.accept_classes is None


def test_an_image_with_several_labels_counts_for_each() -> None:
    probabilities = np.array([[0.9, 0.1, 0.1], [0.1, 0.9, 0.9]])
    found = decisions(POLICY, probabilities, np.array([[1.0, 0, 0], [0, 1, 1]]), CLASSES, None)
    assert found.by_class["open"] == found.by_class["short"] == {"accept": 0, "review": 0, "reject": 1}
    assert sum(found.counts.values()) == 2
