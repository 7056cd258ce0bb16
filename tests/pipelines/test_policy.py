from pathlib import Path

import pytest
import torch
from tests.colours import CLASSES, SPLITS
from tests.pipelines.progress import Told

from glint.core.errors import GlintError
from glint.core.manifest import Manifest
from glint.core.policy import Costs, Policy
from glint.core.policy_trial import Tried, try_policy
from glint.pipelines.policy import try_on_split
from glint.pipelines.targets import labelled_table, target_array
from glint.settings import Settings
from glint.vision.bundle import Bundle
from glint.vision.predictor import Predictor
from glint.wiring import Model, open_images, uncalibrated

PRICED = Policy(accept_classes=("blue", "green"), costs=Costs(missed_defect=20, false_alarm=2, human_look=1))


def tried_on(bundle: Bundle, manifest: Manifest, split: str, settings: Settings) -> Tried:
    opening = uncalibrated(Model(str(bundle.directory), bundle), settings)
    return try_on_split(bundle, PRICED, opening, manifest, split, open_images(settings), Told())


def test_a_policy_is_fitted_to_uncalibrated_scores_whatever_the_present_temperature(
    blind: Bundle, colours: Manifest, settings: Settings, ray_cluster: None
) -> None:
    sure = Bundle(blind.directory, blind.policy.model_copy(update={"temperature": 0.5}))
    tried = tried_on(sure, colours, "val", settings)
    predictor, table = Predictor(blind), labelled_table(colours, "val")
    files = [Path(uri.removeprefix("file://")) for uri in table["uri"].to_pylist()]
    raw = predictor.raw_score(torch.stack([predictor.prepare(file.read_bytes()).pixels for file in files]))
    expected = try_policy(sure.policy, PRICED, raw, target_array(table), CLASSES)
    assert tried.num_images == 3 * SPLITS["val"]
    assert tried.present.ece == pytest.approx(expected.present.ece, abs=1e-4)
    assert tried.present.rates == expected.present.rates
    assert tried.present.rates.escape_rate == 1, "every red picture passes for another colour"
    assert tried.policy.temperature == pytest.approx(expected.policy.temperature, rel=1e-3)
    assert tried.policy.fitted_on == "val"
    assert (tried.new.rates, tried.new.rates.escape_rate) == (expected.new.rates, 0)


def test_what_training_learned_from_cannot_calibrate(sighted: Bundle, colours: Manifest, settings: Settings) -> None:
    with pytest.raises(GlintError, match="--split train cannot calibrate"):
        tried_on(sighted, colours, "train", settings)


def test_model_and_manifest_must_have_the_same_classes(bundle: Bundle, colours: Manifest, settings: Settings) -> None:
    with pytest.raises(GlintError, match=r"--manifest has the classes \['blue', .*, but the model has \['good'"):
        tried_on(bundle, colours, "val", settings)
