import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, precision_score, recall_score

from glint.core.intervals import (
    MIN_GROUPS,
    Tallies,
    exact_interval,
    group_codes,
    group_tallies,
    indicator_tallies,
    interval,
    metric_replicates,
    resample,
    resampling_column,
    within_one_standard_error,
)
from glint.core.metrics import classification_scores


def some_images(seed: int, num_images: int = 120, num_groups: int = 25, num_classes: int = 4) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    targets, codes = random.integers(num_classes, size=num_images), random.integers(num_groups, size=num_images)
    wrong = random.random(num_images) < 0.3
    predicted = np.where(wrong, random.integers(num_classes, size=num_images), targets)
    codes[:num_groups] = np.arange(num_groups)
    return [targets, predicted, codes]


def drawn(codes: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The images of one replicate, materialised."""
    return np.repeat(np.arange(len(codes)), counts[codes])


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), num_classes=st.integers(2, 6))
def test_replicates_are_the_scores_of_scikit_learn_on_the_images_drawn(seed: int, num_classes: int) -> None:
    targets, predicted, codes = some_images(seed, num_classes=num_classes)
    counts = resample(25, num_replicates=3, seed=seed)
    found = metric_replicates(group_tallies(targets, predicted, codes, num_classes), counts)
    for replicate, row in enumerate(counts):
        images = drawn(codes, row)
        truth, guess = targets[images], predicted[images]
        assert found["accuracy"][replicate] == pytest.approx(accuracy_score(truth, guess))
        assert found["macro_f1"][replicate] == pytest.approx(f1_score(truth, guess, average="macro"))
        own = classification_scores(truth, guess, tuple("abcdef"[:num_classes]))
        assert found["balanced_accuracy"][replicate] == pytest.approx(own.balanced_accuracy)
        for name, score in (("recall", recall_score), ("precision", precision_score), ("f1", f1_score)):
            each = score(truth, guess, labels=range(num_classes), average=None, zero_division=np.nan)
            np.testing.assert_allclose(found[name][replicate], each)


def test_balanced_accuracy_is_that_of_scikit_learn() -> None:
    targets, predicted, codes = some_images(1)
    found = metric_replicates(group_tallies(targets, predicted, codes, 4), np.ones((1, 25), dtype=int))
    assert found["balanced_accuracy"][0] == pytest.approx(balanced_accuracy_score(targets, predicted))


def test_several_labels_an_image_are_scored_as_scikit_learn_does() -> None:
    random = np.random.default_rng(0)
    targets, predicted = random.random((2, 90, 3)) < 0.5
    codes = np.arange(90) % 30
    counts = resample(30, num_replicates=2)
    found = metric_replicates(indicator_tallies(targets, predicted, codes), counts)
    images = drawn(codes, counts[1])
    assert found["macro_f1"][1] == pytest.approx(f1_score(targets[images], predicted[images], average="macro"))
    each = precision_score(targets[images], predicted[images], average=None)
    np.testing.assert_allclose(found["precision"][1], each)


def test_a_class_without_images_is_undefined_rather_than_zero() -> None:
    tallies = group_tallies(np.array([0, 0]), np.array([0, 1]), np.array([0, 1]), 3)
    found = metric_replicates(tallies, np.ones((1, 2), dtype=int))
    np.testing.assert_array_equal(np.isnan(found["recall"][0]), [False, True, True])
    assert found["balanced_accuracy"][0] == 0.5


def test_every_replicate_draws_as_many_groups_as_there_are_and_the_seed_decides() -> None:
    counts = resample(30, num_replicates=50, seed=3)
    assert (counts.sum(1) == 30).all()
    np.testing.assert_array_equal(counts, resample(30, num_replicates=50, seed=3))
    assert (counts != resample(30, num_replicates=50, seed=4)).any()


def test_interval_holds_the_middle_95_percent() -> None:
    found = interval(np.arange(1001.0))
    assert found is not None
    assert (found.low, found.high) == pytest.approx((25, 975))


def test_interval_passes_over_undefined_replicates_but_not_over_most_of_them() -> None:
    values = np.arange(100.0)
    some = np.where(values < 40, np.nan, values)
    found = interval(some)
    assert found is not None
    assert found.low >= 40
    assert interval(np.where(values < 60, np.nan, values)) is None


def test_intervals_over_groups_are_wider_where_a_group_fails_as_one() -> None:
    codes = np.repeat(np.arange(40), 10)
    targets = np.zeros(400, dtype=int)
    by_group = np.where(codes % 4 == 0, 1, 0)
    scattered = np.where(np.arange(400) % 4 == 0, 1, 0)
    widths = []
    for predicted in (by_group, scattered):
        found = interval(metric_replicates(group_tallies(targets, predicted, codes, 2), resample(40))["accuracy"])
        assert found is not None
        widths.append(found.high - found.low)
    assert widths[0] > 3 * widths[1]


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    counts, covered = resample(60, num_replicates=300), 0
    for _ in range(200):
        codes = np.repeat(np.arange(60), 5)
        chance = random.beta(8, 2, size=60)[codes]
        predicted = (random.random(300) > chance).astype(int)
        tallies = group_tallies(np.zeros(300, dtype=int), predicted, codes, 2)
        found = interval(metric_replicates(tallies, counts)["accuracy"])
        covered += found is not None and found.low <= 0.8 <= found.high
    assert 0.89 <= covered / 200 <= 0.99


def test_pairing_tells_a_small_steady_gain_that_two_intervals_would_not() -> None:
    random = np.random.default_rng(0)
    codes = np.repeat(np.arange(40), 20)
    targets = np.zeros(800, dtype=int)
    champion = (random.random(800) < random.beta(2, 6, size=40)[codes]).astype(int)
    challenger = champion.copy()
    challenger[np.flatnonzero(champion)[::5]] = 0
    sides = [group_tallies(targets, predicted, codes, 2) for predicted in (champion, challenger)]
    counts = resample(40)
    alone = [interval(metric_replicates(side, counts)["accuracy"]) for side in sides]
    assert alone[0] is not None
    assert alone[1] is not None
    assert alone[0].high > alone[1].low
    differences = [metric_replicates(side, counts)["accuracy"] for side in sides]
    gain = interval(differences[1] - differences[0])
    assert gain is not None
    assert 0 < gain.low < gain.high


def test_groups_are_the_column_where_there_are_enough() -> None:
    enough = [f"g{i % MIN_GROUPS}" for i in range(100)]
    few = [f"lot{i % 5}" for i in range(100)]
    each = [f"serial{i // 2}" for i in range(100)]
    assert resampling_column({"group": enough, "serial": each}) == "group"
    assert resampling_column({"group": few, "board": enough, "serial": each}) == "serial"
    assert resampling_column({"group": few, "camera": few}) is None
    assert resampling_column({}) is None


def test_images_without_a_group_are_groups_of_their_own() -> None:
    assert resampling_column({"group": [None] * MIN_GROUPS}) == "group"
    assert resampling_column({"group": ["a"] * 100, "note": [None] * 100}) is None
    assert group_codes(["a", None, "a", None, "b"]).tolist() == [0, 1, 0, 2, 3]


def test_a_perfect_share_of_few_is_no_certainty() -> None:
    few, many = exact_interval(12, 12), exact_interval(1000, 1000)
    assert (round(few.low, 3), few.high) == (0.735, 1.0)
    assert many.low > 0.99


def test_no_images_have_no_groups() -> None:
    nothing = np.array([], dtype=int)
    assert group_tallies(nothing, nothing, nothing, 3).actual.shape == (0, 3)
    assert isinstance(group_tallies(nothing, nothing, nothing, 3), Tallies)


def test_chance_alone_may_part_scores_that_lie_within_one_standard_error() -> None:
    """0.95 of 710 images is known to 0.0082."""
    assert within_one_standard_error(0.942, 0.95, 710)
    assert not within_one_standard_error(0.941, 0.95, 710)
    assert within_one_standard_error(1.0, 1.0, 10)
    assert not within_one_standard_error(0.99, 1.0, 10)
