import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glint.core.coverage import coverage


def test_a_model_that_knows_its_mistakes_is_faultless_on_the_rest() -> None:
    confidence = np.linspace(1, 0.5, 100)
    found = coverage(confidence, np.arange(100) < 90)
    assert [(point.coverage, point.accuracy) for point in found.stated] == [
        (0.8, 1.0),
        (0.9, 1.0),
        (0.95, pytest.approx(90 / 95)),
        (1.0, pytest.approx(0.9)),
    ]
    assert found.stated[1].confidence == pytest.approx(confidence[89])


def test_area_is_the_mean_risk_over_all_coverages() -> None:
    found = coverage(np.array([0.9, 0.8, 0.7, 0.6]), np.array([1, 0, 1, 1]))
    assert found.aurc == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 4) / 4)


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.randoms())
def test_the_order_of_equally_sure_answers_does_not_matter(correct: list[bool], random: object) -> None:
    answers = np.array(correct)
    shuffled = np.random.default_rng(0).permutation(answers)
    confidence = np.full(len(answers), 0.7)
    assert coverage(confidence, answers).aurc == pytest.approx(coverage(confidence, shuffled).aurc)
    assert coverage(confidence, answers).aurc == pytest.approx(1 - answers.mean())


def test_the_curve_ends_with_every_image_and_stays_small() -> None:
    random = np.random.default_rng(0)
    found = coverage(random.random(12_345), random.random(12_345) < 0.9)
    assert len(found.curve) == 100
    assert found.curve[-1].coverage == 1
    assert found.curve[0].coverage == pytest.approx(0.01, abs=1e-4)


def test_the_curve_starts_where_there_are_images_enough() -> None:
    found = coverage(np.linspace(1, 0.5, 100), np.arange(100) > 0)
    assert found.curve[0].coverage == pytest.approx(0.2)
    assert found.curve[0].accuracy == pytest.approx(0.95)


def test_one_image_has_a_curve_too() -> None:
    found = coverage(np.array([0.6]), np.array([True]))
    assert [(point.coverage, point.accuracy) for point in found.curve] == [(1.0, 1.0)]
