import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from glint.core.errors import GlintError
from glint.vision.bundle import Bundle
from glint.vision.predictor import Predictor
from glint.vision.selftest import MAX_SAMPLE_BYTES, MAX_SAMPLES, TOLERANCE, run_selftest, write_selftest


def photo(seed: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(256, size=(9, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((120, 90)).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture
def tested(bundle: Bundle, tmp_path: Path) -> Bundle:
    """A bundle with a self-test, made as training makes it."""
    copy = Bundle(Path(shutil.copytree(bundle.directory, tmp_path / "tested")))
    predictor = Predictor(copy)
    samples = [(data, predictor.raw_score(predictor.prepare(data).pixels[None])[0]) for data in map(photo, range(4))]
    write_selftest(copy.directory, samples, TOLERANCE / 10)
    return copy


def edit(bundle: Bundle, name: str, **changes: Any) -> Bundle:
    path = bundle.directory / name
    document = json.loads(path.read_text())
    for key, value in changes.items():
        document[key] = document[key] | value if isinstance(value, dict) else value
    path.write_text(json.dumps(document))
    return Bundle(bundle.directory)


def test_a_bundle_that_is_read_as_it_was_trained_passes(tested: Bundle) -> None:
    result = run_selftest(Predictor(tested))
    assert result is not None
    assert (result.passed, result.num_samples, result.error) == (True, 4, None)
    assert result.max_difference < 1e-6


@pytest.mark.parametrize(
    "change", [{"resize": "crop"}, {"crop_pct": 0.8}, {"mean": [0.4, 0.4, 0.4]}, {"std": [1, 1, 1]}, {"image_size": 48}]
)
def test_any_change_of_preprocessing_is_found_out(tested: Bundle, change: dict[str, Any]) -> None:
    result = run_selftest(Predictor(edit(tested, "bundle.json", preprocessing=change)))
    assert result is not None
    assert not result.passed
    assert result.max_difference > TOLERANCE


def test_the_policy_has_no_say_in_it(tested: Bundle) -> None:
    result = run_selftest(Predictor(edit(tested, "policy.json", temperature=5, review_below=1)))
    assert result is not None
    assert result.passed


def test_scores_that_are_no_numbers_fail(tested: Bundle) -> None:
    weights = tested.weights()
    save_file({name: tensor * torch.nan for name, tensor in weights.items()}, tested.directory / "weights.safetensors")
    result = run_selftest(Predictor(tested, engine="torch"))
    assert result is not None
    assert (result.passed, result.max_difference) == (False, 1)
    assert str(result.error).endswith("probabilities that are no numbers")


def test_a_sample_that_is_gone_or_spoilt_fails_and_is_named(tested: Bundle) -> None:
    for spoil in (lambda path: path.write_bytes(b"no image"), lambda path: path.unlink()):
        spoil(tested.directory / "selftest" / "2")
        result = run_selftest(Predictor(tested))
        assert result is not None
        assert not result.passed
        assert result.error is not None
        assert result.error.startswith("selftest/2: ")


def test_a_bundle_may_have_no_self_test(bundle: Bundle) -> None:
    assert run_selftest(Predictor(bundle)) is None


def test_samples_are_the_least_certain_of_those_that_are_small(tmp_path: Path) -> None:
    sure = [(bytes([number]), [0.99, 0.01]) for number in range(10)]
    doubtful = [(bytes([100 + number]), [0.6, 0.4]) for number in range(4)]
    large = [(bytes(MAX_SAMPLE_BYTES + 1), [0.5, 0.5])]
    kept = write_selftest(tmp_path, [*large, *sure, *doubtful])
    assert len(kept.samples) == MAX_SAMPLES
    assert [sample.probabilities[0] for sample in kept.samples] == [0.6] * 4 + [0.99] * 4
    assert (tmp_path / kept.samples[0].file).read_bytes() == bytes([100])
    only = write_selftest(tmp_path, large)
    assert len(only.samples) == 1


def test_a_self_test_cannot_name_files_elsewhere_or_forgive_everything(tested: Bundle) -> None:
    for change in ({"samples": [{"file": "../../secret", "probabilities": [1.0]}]}, {"tolerance": 0.9}):
        before = (tested.directory / "selftest.json").read_text()
        edit(tested, "selftest.json", **change)
        with pytest.raises(GlintError, match=r"selftest\.json"):
            run_selftest(Predictor(tested))
        (tested.directory / "selftest.json").write_text(before)
