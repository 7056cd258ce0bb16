import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, softmax

from glint.core.calibration import (
    calibration,
    expected_calibration_error,
    fit_temperature,
    logits_of,
    reliability,
    rescaled,
)


def honest_logits(num_images: int = 4000, num_classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose softmax is the truth, and labels drawn from it."""
    random = np.random.default_rng(0)
    logits = random.normal(scale=2, size=(num_images, num_classes))
    chances = softmax(logits, axis=1).cumsum(1)
    return logits, (random.random((num_images, 1)) > chances).sum(1).clip(max=num_classes - 1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_a_known_temperature_is_recovered(temperature: float) -> None:
    logits, targets = honest_logits()
    assert fit_temperature(logits * temperature, targets) == pytest.approx(temperature, rel=0.06)


def test_probabilities_serve_as_well_as_logits() -> None:
    logits, targets = honest_logits()
    found = fit_temperature(logits_of(softmax(3 * logits, axis=1).astype(np.float32)), targets)
    assert found == pytest.approx(fit_temperature(3 * logits, targets), rel=1e-3)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_a_known_temperature_is_recovered_for_several_labels_an_image(temperature: float) -> None:
    random = np.random.default_rng(0)
    logits = random.normal(scale=2, size=(3000, 4))
    targets = (random.random(logits.shape) < expit(logits)).astype(np.float32)
    assert fit_temperature(logits * temperature, targets) == pytest.approx(temperature, rel=0.06)
    answered = logits_of(expit(logits * temperature).astype(np.float32), multi_label=True)
    assert fit_temperature(answered, targets) == pytest.approx(temperature, rel=0.06)


def test_a_model_without_mistakes_is_not_made_certain() -> None:
    logits = np.where(np.eye(3)[np.arange(60) % 3] > 0, 4.0, 0.0)
    temperature = fit_temperature(logits, np.arange(60) % 3)
    surest = softmax(logits / temperature, axis=1).max()
    assert 0.97 < surest < 0.999


def test_error_is_nothing_where_confidence_is_the_share_that_is_right() -> None:
    confidence = np.repeat([0.5, 0.9], 10)
    correct = np.array([1] * 5 + [0] * 5 + [1] * 9 + [0])
    assert expected_calibration_error(confidence, correct) == pytest.approx(0)


def test_error_is_the_mean_distance_weighted_by_images() -> None:
    confidence = np.repeat([0.95, 0.55], [30, 10])
    correct = np.array([1] * 15 + [0] * 15 + [1] * 10)
    assert expected_calibration_error(confidence, correct) == pytest.approx((30 * 0.45 + 10 * 0.45) / 40)
    assert expected_calibration_error(np.array([]), np.array([])) == 0


def test_bins_without_answers_are_left_out_and_the_ends_belong_to_one() -> None:
    found = reliability(np.array([0.0, 0.1, 1.0]), np.array([0, 1, 1]), num_bins=10)
    assert [(bin.low, bin.high, bin.count, bin.accuracy) for bin in found] == [(0.0, 0.1, 2, 0.5), (0.9, 1.0, 1, 1.0)]


@given(seed=st.integers(0, 1000), temperature=st.floats(0.5, 4), multi_label=st.booleans())
def test_rescaling_there_and_back_gives_what_was(seed: int, temperature: float, multi_label: bool) -> None:
    logits = np.random.default_rng(seed).normal(scale=2, size=(5, 4))
    before = (expit(logits) if multi_label else softmax(logits, axis=1)).astype(np.float32)
    there = rescaled(before, temperature, multi_label)
    np.testing.assert_allclose(rescaled(there, 1 / temperature, multi_label), before, atol=1e-3)
    assert multi_label or there.sum(1) == pytest.approx(1)
    np.testing.assert_array_equal(there.argmax(1), before.argmax(1))


def test_no_scaling_changes_no_bit() -> None:
    values = np.random.default_rng(0).random((3, 4)).astype(np.float32)
    np.testing.assert_array_equal(rescaled(values, 1.0), values)


def test_fitting_brings_the_error_down() -> None:
    logits, targets = honest_logits()
    raw = softmax(3 * logits, axis=1)
    temperature = fit_temperature(logits_of(raw[:2000]), targets[:2000])
    found = calibration(raw[2000:], rescaled(raw, temperature)[2000:], targets[2000:], temperature)
    assert found.ece_before > 0.1
    assert found.ece_after < 0.03
    assert sum(bin.count for bin in found.bins_after) == 2000


def test_each_class_of_an_image_with_several_labels_is_an_answer() -> None:
    targets = np.array([[1, 0], [1, 1]], dtype=np.float32)
    found = calibration(targets, np.full((2, 2), 0.75), targets, 1.0)
    assert (found.ece_before, found.ece_after) == (0, 0)
    assert sum(bin.count for bin in found.bins_after) == 4
