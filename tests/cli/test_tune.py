"""Tuning by the command line, interrupted as a person does it, and going on."""

import json
import shlex
from pathlib import Path

import pytest
from tests.cli.interrupting import again, interrupted

from glint.core.manifest import Manifest
from glint.core.recipe import read_recipe

RECIPE = """\
name: boards
backbone: test_resnet
weights: none
preprocessing: {image_size: 64}
optimisation: {epochs: 2, batch_size: 32}
"""


@pytest.mark.slow
def test_interrupted_tuning_goes_on_with_the_trials_that_are_left(manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "space.yaml").write_text("optimisation.lr: {loguniform: [1.0e-4, 1.0e-2]}\n")
    files = {"recipe": tmp_path / "recipe.yaml", "space": tmp_path / "space.yaml", "manifest": manifest.path}
    named = [part for option, file in files.items() for part in (f"--{option}", str(file))]
    command = ["tune", *named, "--trials", "2", "--out", str(tmp_path / "tuned"), "--json"]
    said = interrupted(command, tmp_path / "home", after="trial 1 (")
    assert "interrupted; trials that have ended, and finished epochs of others, are kept; " in said
    assert f"glint {shlex.join(command)} goes on from there" in said
    ended = again(command, tmp_path / "home")
    assert ended.returncode == 0, ended.stderr
    # Ray Tune notes the end of a trial some moments later: one that has ended just before may be looked at again.
    told = [line.partition(" (")[0] for line in ended.stderr.splitlines() if line.startswith("trial ")]
    assert told in (["trial 1", "trial 2"], ["trial 2"])
    tuned = json.loads(ended.stdout)
    assert all(1 <= trial["epochs"] <= 2 and trial["score"] is not None for trial in tuned["trials"])
    assert len({trial["trial"] for trial in tuned["trials"]}) == 2
    assert read_recipe(tmp_path / "tuned" / "best.yaml").model_dump(mode="json") == tuned["best"]
    finished = again(command, tmp_path / "home")
    assert finished.stderr.splitlines()[-1].endswith("is finished already; --fresh starts over")
    assert json.loads(finished.stdout) == tuned
