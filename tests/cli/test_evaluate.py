"""glint evaluate: what it compares with, and what it says on a terminal."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console
from tests.colours import CLASSES, colour_bundle, register
from typer.testing import CliRunner

from glint.adapters.registry import Registry
from glint.cli.app import app
from glint.cli.evaluate import evaluate
from glint.cli.evaluated import shown
from glint.cli.opponent import find_opponent
from glint.core.errors import GlintError
from glint.core.manifest import SCHEMA, Manifest, write_manifest
from glint.core.outcome import ModelRef
from glint.core.policy import Policy
from glint.pipelines.evaluation import ScoredSplit, Subject, assess
from glint.settings import Settings
from glint.vision.bundle import Bundle
from glint.wiring import open_model


def opponent(model: str, against: str | None, settings: Settings) -> tuple[str | None, str | None]:
    """The version that it is compared with, and why there is none."""
    found, reason = find_opponent(open_model(model, settings), against, CLASSES, settings)
    return found.model.version if found else None, reason


def test_a_version_is_compared_with_the_champion_of_its_name(name: str, registry: Registry, settings: Settings) -> None:
    assert opponent(f"models:/{name}/2", None, settings) == (None, f"{name} has no champion yet")
    registry.promote(name, "1", "champion")
    assert opponent(f"models:/{name}/2", None, settings) == ("1", None)
    assert opponent(f"models:/{name}/1", None, settings) == (None, "this is the champion")
    assert opponent(f"models:/{name}/2", "none", settings) == (None, "--against none")


def test_any_model_can_be_named_to_compare_with(name: str, sighted: Bundle, settings: Settings) -> None:
    assert opponent(f"models:/{name}/1", f"models:/{name}/2", settings) == ("2", None)
    found, _ = find_opponent(open_model(str(sighted.directory), settings), f"models:/{name}/2", CLASSES, settings)
    assert found is not None
    assert (
        opponent(str(sighted.directory), None, settings)[1] == "the model is not in the registry, so it has no champion"
    )


def test_models_for_other_classes_or_tasks_are_not_compared(
    name: str, bundle: Bundle, colours: Manifest, registry: Registry, settings: Settings, tmp_path: Path
) -> None:
    with pytest.raises(GlintError, match=r"--against .* has other classes: .*mousebite"):
        opponent(f"models:/{name}/1", str(bundle.directory), settings)
    multi = colour_bundle(tmp_path / "artifacts" / "bundle", colours)
    document = json.loads((multi.directory / "bundle.json").read_text())
    document["recipe"]["task"] = "multi"
    (multi.directory / "bundle.json").write_text(json.dumps(document))
    registry.promote(name, register(registry, name, Bundle(multi.directory)), "champion")
    reason = "the champion, version 3, is for the task multi, not single"
    assert opponent(f"models:/{name}/1", None, settings) == (None, reason)


def printed(policy: Policy, against: bool, num_seen: int = 3) -> str:
    random = np.random.default_rng(0)
    targets = np.arange(300) % num_seen
    shares = random.dirichlet(np.ones(3), 300) + 0.6 * np.eye(3)[targets]
    shares[:, num_seen:] = 0
    shares /= shares.sum(1, keepdims=True)
    uris, groups = [str(i) for i in range(300)], {"group": [str(i % 30) for i in range(300)]}
    scored = ScoredSplit(uris, targets, shares, shares, groups, {"gone": "missing"})
    model = ModelRef(name="colours", version="2", bundle="b", policy="p", engine="torch")
    other = (model.model_copy(update={"version": "1"}), scored) if against else None
    console = Console(width=200, record=True, file=io.StringIO())
    for part in shown(assess(scored, CLASSES, Subject(model, policy, "m", "d", "test"), other)):
        console.print(part, soft_wrap=True)
    return console.export_text()


def test_a_terminal_shows_scores_with_intervals_calibration_decisions_and_comparison() -> None:
    text = printed(Policy(accept_classes=("green",), temperature=0.8), against=True)
    for part in ("balanced accuracy 0.", "95% intervals over 30 values of group", "without the temperature 0.800"):
        assert part in text
    assert "escape rate 0." in text
    assert "against colours version 1: accuracy +0.0000 (-0.012 to +0.012)" in text
    assert "both right" in text
    assert "1 images left out: 1 missing" in text


def test_a_terminal_warns_of_a_calibration_by_the_same_split() -> None:
    told = ", which was fitted on this very split"
    assert told in printed(Policy(temperature=0.8, fitted_on="test"), against=False)
    assert told not in printed(Policy(temperature=0.8, fitted_on="val"), against=False)


def test_a_terminal_says_what_cannot_be_told() -> None:
    text = printed(Policy(), against=False)
    assert "the policy has no temperature fitted" in text
    assert "names no class, so nothing can escape" in text
    assert "not compared: no other model was named" in text


def test_a_class_that_was_neither_there_nor_found_has_no_scores() -> None:
    lines = printed(Policy(), against=False, num_seen=2).splitlines()
    assert next(line.split() for line in lines if line.startswith(CLASSES[2])) == [CLASSES[2], "0"]


@pytest.mark.slow
def test_evaluate_writes_the_report_and_answers_in_json(
    name: str,
    registry: Registry,
    colours: Manifest,
    ray_cluster: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    registry.promote(name, "1", "champion")
    evaluate(f"models:/{name}/2", colours.path, tmp_path / "report", json=True)
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((tmp_path / "report" / "report.json").read_text())
    assert found["comparison"]["against"]["version"] == "1"
    assert found["per_class"]["red"]["recall"] == 0


@pytest.mark.parametrize("verb", ["evaluate", "promote", "policy"])
def test_images_that_the_settings_let_nobody_read_are_told_before_ray_starts(
    verb: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GLINT_BLOB_ACCOUNT", raising=False)
    monkeypatch.setattr("glint.cli.starting.start_ray", lambda *_: pytest.fail("Ray was started"))
    rows = [dict(zip(SCHEMA.names, ("az://boards/a.png", "e", 1, ["red"], "1", "test"), strict=True))]
    manifest = write_manifest(tmp_path / "blobs.parquet", [pa.Table.from_pylist(rows)], source="az://boards").path
    options = {
        "evaluate": ["--model", f"models:/{name}/1", "--report", str(tmp_path / "report")],
        "promote": [name, "--version", "1"],
        "policy": [f"{name}/1"],
    }
    asked = [verb, *options[verb], "--manifest", str(manifest), "--split", "test"]
    with pytest.raises(GlintError, match="needs a storage account: set GLINT_BLOB_ACCOUNT"):
        CliRunner().invoke(app, asked, catch_exceptions=False)
