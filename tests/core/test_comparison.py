import numpy as np
import pytest

from glint.core.bootstrap import Bootstrap
from glint.core.comparison import comparison
from glint.core.intervals import resample
from glint.core.metrics import classification_scores, multi_label_scores
from glint.core.outcome import ModelRef

CLASSES = ("good", "open", "short")
CHAMPION = ModelRef(name="boards", version="1", bundle="a" * 32, policy="b" * 16, engine="torch")


def test_images_are_counted_by_who_is_right() -> None:
    targets = np.array([0, 0, 1, 1, 1])
    model, champion = np.array([0, 0, 1, 0, 0]), np.array([0, 1, 0, 1, 2])
    scores = tuple(classification_scores(targets, guess, CLASSES) for guess in (model, champion))
    found = comparison(CHAMPION, targets, (model, champion), (scores[0], scores[1]), None)
    assert (found.both_right, found.only_model_right, found.only_against_right, found.both_wrong) == (1, 2, 1, 1)
    assert found.scores["accuracy"].difference == pytest.approx(0.2)
    assert found.scores["accuracy"].interval is None
    assert set(found.scores) == {"accuracy", "macro_f1"}
    assert set(found.recall) == {"good", "open"}
    assert found.recall["good"].difference == pytest.approx(0.5)


def test_differences_have_paired_intervals() -> None:
    random = np.random.default_rng(0)
    targets = random.integers(0, 3, 900)
    champion = np.where(random.random(900) < 0.3, (targets + 1) % 3, targets)
    model = np.where((targets == 1) & (random.random(900) < 0.6), targets, champion)
    scores = tuple(classification_scores(targets, guess, CLASSES) for guess in (model, champion))
    drawn = Bootstrap(np.arange(900) % 90, resample(90))
    found = comparison(CHAMPION, targets, (model, champion), (scores[0], scores[1]), drawn)
    for difference in (found.scores["accuracy"], found.scores["macro_f1"], found.recall["open"]):
        assert difference.interval is not None
        assert 0 < difference.interval.low < difference.difference < difference.interval.high
    assert found.recall["open"].lost == 0


def test_models_that_never_differ_are_not_equal_for_certain() -> None:
    targets = np.arange(600) % 3
    same = np.where(np.arange(600) % 10 == 0, (targets + 1) % 3, targets)
    scores = classification_scores(targets, same, CLASSES)
    widths = []
    for num_groups in (600, 60):
        drawn = Bootstrap(np.arange(600) % num_groups, resample(num_groups))
        found = comparison(CHAMPION, targets, (same, same), (scores, scores), drawn)
        for difference in (*found.scores.values(), *found.recall.values()):
            assert difference.interval is not None
            assert difference.interval.low == -difference.interval.high < 0
        assert found.recall["open"].interval is not None
        assert found.scores["macro_f1"].interval is not None
        # 0 of 600: at most 0.6% (Clopper and Pearson, 97.5%); 0 of the 200 of a class: at most 1.8%
        assert found.scores["macro_f1"].interval.high == pytest.approx(3.69 / 600, rel=0.05)
        widths.append(found.recall["open"].interval.high)
    # in 200 groups, and in 20
    assert widths == [pytest.approx(3.65 / 200, rel=0.01), pytest.approx(3.37 / 200, rel=0.01)]


def test_a_model_that_has_only_won_may_yet_lose() -> None:
    targets = np.arange(300) % 3
    champion = np.where(np.arange(300) < 30, (targets + 1) % 3, targets)
    scores = [classification_scores(targets, one, CLASSES) for one in (targets, champion)]
    drawn = Bootstrap(np.arange(300), resample(300))
    found = comparison(CHAMPION, targets, (targets, champion), (scores[0], scores[1]), drawn).scores["accuracy"]
    alone = drawn.difference_of_shares(champion == targets, targets == targets)
    assert found.interval is not None
    assert alone is not None
    assert found.interval.low == pytest.approx(alone.low - 3.67 / 300, abs=1e-3)
    assert found.interval.high == alone.high


def test_several_labels_are_compared_by_micro_f1_too() -> None:
    targets = np.tile(np.array([[1.0, 0, 1], [0, 1, 0]]), (30, 1))
    champion = np.where(np.arange(60)[:, None] % 3 == 0, 1 - targets, targets)
    scores = tuple(multi_label_scores(targets, guess, CLASSES) for guess in (targets, champion))
    drawn = Bootstrap(np.arange(60), resample(60))
    found = comparison(CHAMPION, targets, (targets, champion), (scores[0], scores[1]), drawn)
    assert (found.both_right, found.only_model_right) == (40, 20)
    assert found.scores["micro_f1"].interval is not None
    assert found.scores["micro_f1"].interval.low > 0
