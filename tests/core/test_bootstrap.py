import numpy as np
import pytest

from glint.core.bootstrap import MIN_JUDGED_GROUPS, Bootstrap, Differences, bootstrap
from glint.core.intervals import MIN_GROUPS, resample

CLASSES = ("good", "open", "short")


def groups(num_groups: int, num_images: int = 300) -> list[str | None]:
    return [f"board{i % num_groups}" for i in range(num_images)]


def images(num_images: int = 300) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    targets = random.integers(0, 3, num_images)
    return targets, np.where(random.random(num_images) < 0.2, (targets + 1) % 3, targets)


def test_groups_are_drawn_where_there_are_enough_of_them() -> None:
    drawn, said = bootstrap({"group": groups(MIN_GROUPS), "serial": groups(300)}, num_replicates=10)
    assert drawn is not None
    assert (said.column, said.num_groups, said.replicates, said.note) == ("group", MIN_GROUPS, 10, None)


def test_the_finest_column_stands_in_for_too_few_groups_and_is_named() -> None:
    drawn, said = bootstrap({"group": groups(4), "board": groups(40), "serial": groups(150)}, num_replicates=10)
    assert drawn is not None
    assert (said.column, said.num_groups) == ("serial", 150)
    assert said.note == "group has 4 values, fewer than 20"


def test_images_without_a_value_of_a_stand_in_column_are_one_group_and_counted_so() -> None:
    serial = [None if i < 200 else f"S{i % 25}" for i in range(300)]
    drawn, said = bootstrap({"group": groups(4), "serial": serial}, num_replicates=10)
    assert drawn is not None
    assert (said.num_groups, drawn.counts.shape[1], len(set(drawn.codes[:200].tolist()))) == (26, 26, 1)
    assert said.note == "group has 4 values, fewer than 20 (the 200 images without a value count as one)"


def test_an_image_without_a_group_is_one_of_its_own() -> None:
    _, said = bootstrap({"group": [None if i < 200 else "board" for i in range(300)]}, num_replicates=10)
    assert (said.column, said.num_groups, said.note) == ("group", 201, None)


def test_nothing_is_drawn_without_enough_values_and_the_reason_is_given() -> None:
    drawn, said = bootstrap({"group": groups(1), "camera": groups(3)})
    assert drawn is None
    assert said.column is None
    assert said.note == "group has 1 value, fewer than 20, and no other column that puts images together has as many"


def test_a_column_with_a_value_for_nearly_every_image_is_no_group() -> None:
    measured: list[str | None] = [f"{i // 3 * 3 if i < 100 else i} mm" for i in range(300)]
    drawn, said = bootstrap({"group": groups(4), "file": groups(300), "width": measured}, num_replicates=10)
    assert (drawn, said.column) == (None, None)
    _, said = bootstrap({"group": groups(4), "file": groups(300), "board": groups(40)}, num_replicates=10)
    assert said.column == "board"
    paired: list[str | None] = [None if i < 200 else f"{i // 2}" for i in range(300)]
    assert bootstrap({"group": groups(4), "pair": paired}, num_replicates=10)[1].column == "pair"


def test_every_score_has_an_interval_around_it() -> None:
    targets, predicted = images()
    drawn, _ = bootstrap({"group": groups(60)})
    assert drawn is not None
    found = drawn.scores(targets, predicted, CLASSES)
    accuracy = (targets == predicted).mean()
    assert found.accuracy is not None
    assert found.accuracy.low < accuracy < found.accuracy.high
    assert found.micro_f1 is None
    for one in found.per_class.values():
        for interval in (one.precision, one.recall, one.f1):
            assert interval is not None
            assert 0.6 < interval.low < interval.high < 1


def test_a_class_in_few_groups_has_no_interval_of_its_own() -> None:
    targets, predicted = images()
    codes = np.arange(300) % 60
    rare = (targets == 2) & (codes >= MIN_JUDGED_GROUPS - 1)
    targets[rare], predicted[rare] = 0, 0
    found = Bootstrap(codes, resample(60)).scores(targets, predicted, CLASSES)
    assert found.per_class["short"].recall is None
    assert found.per_class["good"].recall is not None
    assert found.macro_f1 is not None


def test_averages_over_classes_have_no_interval_when_resamples_would_lose_a_class() -> None:
    targets, predicted = images()
    targets[targets == 2], predicted[predicted == 2] = 0, 0
    targets[0] = 2
    found = Bootstrap(np.arange(300) % 60, resample(60)).scores(targets, predicted, CLASSES)
    assert (found.macro_f1, found.balanced_accuracy) == (None, None)
    assert found.accuracy is not None


def test_paired_averages_have_no_interval_either_when_resamples_would_lose_a_class() -> None:
    targets, predicted = images()
    drawn = Bootstrap(np.arange(300) % 60, resample(60))

    def paired(guesses: np.ndarray) -> Differences:
        return drawn.differences(*(drawn.tallies(targets, side, 3) for side in (targets, guesses)))

    assert paired(predicted).macro_f1 is not None
    targets[targets == 2], predicted[predicted == 2] = 0, 0
    assert paired(predicted).macro_f1 is not None, "no class that is nowhere keeps the others from being judged"
    predicted[0] = 2
    assert paired(predicted).macro_f1 is None
    assert paired(predicted).recall[0] is not None


@pytest.mark.parametrize("right", [True, False])
def test_all_or_nothing_is_no_certainty(right: bool) -> None:
    codes = np.arange(30)
    found = Bootstrap(codes, resample(30)).share(np.full(30, right))
    assert found is not None
    assert (
        (found.low, found.high) == (pytest.approx(0.884, abs=1e-3), 1) if right else (0, pytest.approx(0.116, abs=1e-3))
    )


def test_a_share_is_of_the_images_asked_for() -> None:
    codes = np.arange(400) % 40
    part, whole = codes % 2 == 0, np.arange(400) < 200
    drawn = Bootstrap(codes, resample(40))
    found = drawn.share(part, whole)
    assert found is not None
    assert found.low < 0.5 < found.high
    assert drawn.share(part, codes < MIN_JUDGED_GROUPS - 1) is None


def test_several_labels_an_image_are_scored_by_class_and_by_image() -> None:
    random = np.random.default_rng(0)
    targets = (random.random((200, 3)) < 0.4).astype(np.float32)
    predicted = np.where(random.random((200, 3)) < 0.1, 1 - targets, targets)
    found = Bootstrap(np.arange(200), resample(200)).scores(targets, predicted, CLASSES)
    exact = (targets == predicted).all(1).mean()
    assert found.accuracy is not None
    assert found.accuracy.low < exact < found.accuracy.high
    assert found.micro_f1 is not None
    assert found.per_class["open"].recall is not None
