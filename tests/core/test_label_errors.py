import numpy as np

from glint.core.label_errors import label_errors, presence_errors


def probable(rows: list[tuple[int, float]], num_classes: int = 3) -> np.ndarray:
    """One row for each (class, its probability); the others share the rest."""
    found = np.array([[(1 - p) / (num_classes - 1)] * num_classes for _, p in rows])
    found[np.arange(len(rows)), [label for label, _ in rows]] = [p for _, p in rows]
    return found


def test_an_image_surely_of_another_class_is_suspected() -> None:
    probabilities = probable([(0, 0.9), (0, 0.9), (1, 0.95), (1, 0.9), (1, 0.9), (2, 0.9)])
    (found,) = label_errors(probabilities, np.array([0, 0, 0, 1, 1, 2]))
    assert (found.index, found.given, found.suggested) == (2, 0, 1)
    assert found.score < 0.05


def test_doubt_alone_is_no_suspicion() -> None:
    probabilities = probable([(0, 0.9), (0, 0.9), (1, 0.6), (1, 0.9), (1, 0.9), (2, 0.9)])
    assert label_errors(probabilities, np.array([0, 0, 0, 1, 1, 2])) == []


def test_a_class_that_the_model_is_never_sure_of_has_a_threshold_of_its_own() -> None:
    rows = [(2, 0.5)] * 10 + [(0, 0.9)] * 10
    targets = np.array([2] * 9 + [0] * 11)
    (found,) = label_errors(probable(rows), targets)
    assert (found.index, found.given, found.suggested) == (9, 0, 2)


def test_a_class_whose_few_labels_are_all_wrong_draws_no_suspicion_on_the_others() -> None:
    probabilities = probable([(0, 0.9)] * 10 + [(0, 0.6)] * 10 + [(0, 0.98)])
    (found,) = label_errors(probabilities, np.array([0] * 20 + [2]))
    assert (found.index, found.given, found.suggested) == (20, 2, 0)


def test_the_most_doubtful_come_first() -> None:
    probabilities = probable([(0, 0.8)] * 8 + [(1, 0.85), (1, 0.99)] + [(1, 0.8)] * 8)
    found = label_errors(probabilities, np.array([0] * 10 + [1] * 8))
    assert [one.index for one in found] == [9, 8]
    assert found[0].score < found[1].score


def test_flipped_labels_are_found_among_many() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 4, 1000)
    logits = random.normal(size=(1000, 4)) + 6 * np.eye(4)[truth]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    flipped = random.choice(1000, 40, replace=False)
    given = truth.copy()
    given[flipped] = (truth[flipped] + 1) % 4
    found = {one.index for one in label_errors(probabilities, given)[:40]}
    assert len(found & set(flipped.tolist())) >= 37


def test_a_class_without_images_is_never_suggested() -> None:
    probabilities = probable([(2, 0.99), (0, 0.9), (1, 0.9)])
    assert label_errors(probabilities, np.array([0, 0, 1])) == []


def test_presence_and_absence_are_doubted_class_by_class() -> None:
    probabilities = np.array([[0.95, 0.1], [0.9, 0.05], [0.97, 0.9], [0.05, 0.95], [0.1, 0.02]])
    targets = np.array([[1, 0], [1, 0], [1, 1], [0, 0], [0, 0]])
    ((label, found),) = presence_errors(probabilities, targets)
    assert (label, found.index, found.given, found.suggested) == (1, 3, 0, 1)
