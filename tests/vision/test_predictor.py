import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from glint.core.errors import GlintError
from glint.core.policy import Policy
from glint.vision.bundle import Bundle
from glint.vision.decode import Limits
from glint.vision.predictor import Predictor


@pytest.fixture
def predictor(bundle: Bundle) -> Predictor:
    return Predictor(bundle, limits=Limits(max_pixels=100_000))


def picture(kind: str = "JPEG", size: tuple[int, int] = (80, 60)) -> bytes:
    file = io.BytesIO()
    Image.effect_noise(size, 80).convert("RGB").save(file, kind)
    return file.getvalue()


def test_a_bad_image_has_its_reason_and_leaves_its_neighbours_alone(predictor: Predictor, tmp_path: Path) -> None:
    good = tmp_path / "good.png"
    good.write_bytes(picture("PNG"))
    images = [good, b"", picture()[:200], tmp_path / "absent.jpg", picture("PNG", (400, 300)), str(good)]
    predictions = predictor.predict(images)
    assert [one.status for one in predictions] == ["ok", "undecodable", "undecodable", "missing", "too_large", "ok"]
    assert [one.error.type for one in predictions if one.error] == ["empty", "truncated", "missing", "too_many_pixels"]
    assert predictions[0] == predictions[5]


def test_top_k_is_ranked_and_the_label_is_its_first(predictor: Predictor) -> None:
    whole = predictor.predict([picture()])[0]
    assert [score.confidence for score in whole.top_k] == sorted((s.confidence for s in whole.top_k), reverse=True)
    assert sum(score.confidence for score in whole.top_k) == pytest.approx(1)
    assert whole.label == whole.top_k[0].label
    assert len(predictor.predict([picture()], top_k=2)[0].top_k) == 2


@pytest.mark.parametrize(
    ("probabilities", "decision"),
    [((0.9, 0.05, 0.05), "accept"), ((0.1, 0.8, 0.1), "reject"), ((0.4, 0.35, 0.25), "review")],
)
def test_decision_follows_the_policy(predictor: Predictor, probabilities: tuple[float, ...], decision: str) -> None:
    assert predictor.interpret(np.array(probabilities)).decision == decision


def test_no_images_give_no_rows(predictor: Predictor) -> None:
    none = predictor.score(torch.zeros(0, 3, 64, 64, dtype=torch.uint8))
    assert none.shape == (0, len(predictor.bundle.info.classes))


def test_prepared_image_remembers_its_own_size(predictor: Predictor) -> None:
    prepared = predictor.prepare(picture(size=(80, 60)))
    assert (prepared.width, prepared.height) == (80, 60)
    assert prepared.pixels.shape == (3, 64, 64)


def test_a_single_image_is_refused_before_its_name_is_taken_apart(predictor: Predictor, tmp_path: Path) -> None:
    for one in ("a.jpg", b"bytes", tmp_path / "a.jpg"):
        with pytest.raises(GlintError, match="predict takes a list"):
            predictor.predict(one)


# Calibration.


def test_temperature_softens_the_score_and_leaves_the_raw_one_and_the_label(bundle: Bundle) -> None:
    plain, soft = Predictor(bundle), Predictor(Bundle(bundle.directory, Policy(temperature=4)))
    images = torch.stack([plain.prepare(picture(size=(64, 64))).pixels for _ in range(3)])
    raw = plain.raw_score(images)
    np.testing.assert_array_equal(plain.score(images), raw)
    np.testing.assert_array_equal(soft.raw_score(images), raw)
    np.testing.assert_allclose(soft.score(images), softened(raw, 4), atol=1e-6)
    assert (soft.score(images).argmax(1) == raw.argmax(1)).all()
    assert (soft.score(images).max(1) < raw.max(1)).all()


def softened(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    power = probabilities ** (1 / temperature)
    return power / power.sum(1, keepdims=True)


# Several labels an image.


@pytest.fixture
def several(bundle: Bundle, tmp_path: Path) -> Predictor:
    """The same model, as one that gives an image any number of labels."""
    shutil.copytree(bundle.directory, tmp_path / "several")
    path = tmp_path / "several" / "bundle.json"
    document = json.loads(path.read_text())
    document["recipe"]["task"] = "multi"
    path.write_text(json.dumps(document))
    return Predictor(Bundle(tmp_path / "several"))


def test_each_class_has_a_probability_of_its_own(several: Predictor, predictor: Predictor) -> None:
    images = several.prepare(picture()).pixels[None]
    logits = np.log(predictor.raw_score(images))
    odds = several.raw_score(images) / (1 - several.raw_score(images))
    np.testing.assert_allclose(np.log(odds) - logits, (np.log(odds) - logits).mean(), atol=1e-4)


@pytest.mark.parametrize(
    ("probabilities", "labels", "confidence", "decision"),
    [
        ((0.9, 0.1, 0.05, 0.0), ("good",), 0.9, "accept"),
        ((0.2, 0.6, 0.9, 0.3), ("open", "mousebite"), 0.6, "reject"),
        ((0.1, 0.2, 0.3, 0.1), (), 0.7, "accept"),
        ((0.9, 0.1, 0.1, 0.45), ("good",), 0.55, "review"),
    ],
)
def test_labels_are_the_classes_that_are_likelier_there_than_not(
    several: Predictor, probabilities: tuple[float, ...], labels: tuple[str, ...], confidence: float, decision: str
) -> None:
    found = several.interpret(np.array(probabilities, dtype=np.float32), top_k=2)
    assert (found.labels, found.decision) == (labels, decision)
    assert found.confidence == pytest.approx(confidence)
    assert [score.confidence for score in found.top_k] == pytest.approx(sorted(probabilities, reverse=True)[:2])


def test_of_equal_probabilities_the_first_class_is_the_label_as_in_evaluation(predictor: Predictor) -> None:
    assert predictor.interpret(np.array([0.1, 0.4, 0.4, 0.1])).labels == ("mousebite",)
