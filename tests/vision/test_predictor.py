import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from glint.core.errors import GlintError
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
