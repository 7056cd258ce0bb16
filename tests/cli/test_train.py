"""Interrupting a training as a person does, and going on."""

import json
import re
import shlex
import signal
from pathlib import Path

import mlflow
import pytest
from tests.cli.interrupting import again, interrupted

from glint.core.manifest import Manifest
from glint.settings import Settings

RECIPE = """\
name: boards
backbone: test_resnet
weights: none
preprocessing: {image_size: 64}
optimisation: {epochs: 5, batch_size: 32}
"""


@pytest.fixture
def command(manifest: Manifest, tmp_path: Path) -> list[str]:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return ["train", "--recipe", str(tmp_path / "recipe.yaml"), "--manifest", str(manifest.path), "--json"]


def runs(home: Path) -> list[tuple[str, str]]:
    """Id and status of all MLflow runs."""
    client = mlflow.MlflowClient(Settings(home=home).tracking_uri)
    found = client.search_runs([one.experiment_id for one in client.search_experiments()])
    return [(run.info.run_id, run.info.status) for run in found]


@pytest.mark.slow
def test_interrupted_training_says_how_to_go_on_and_goes_on(command: list[str], tmp_path: Path) -> None:
    home = tmp_path / "home"
    nothing = interrupted([*command, "--fresh"], home, after="starting Ray")
    assert nothing.splitlines()[-1] == "glint: interrupted; nothing is kept yet"
    said = interrupted([*command, "--fresh"], home, after="epoch 2/5", how=signal.SIGTERM).splitlines()[-1]
    # Ray Train notes a checkpoint some moments after the epoch is told of, and would go on from the one before.
    assert re.match(r"glint: interrupted; epoch [123] of 5 is kept; ", said)
    assert said.endswith(f"glint {shlex.join(command)} goes on from there")
    [(first, status)] = runs(home)
    ended = again(command, home)
    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout)
    assert result["resumed"] is True
    epochs = [line.partition(":")[0] for line in ended.stderr.splitlines() if line.startswith("epoch")]
    assert "epoch 1/5" not in epochs
    assert epochs[-1] == "epoch 5/5"
    assert (status, result["mlflow_run"], runs(home)) == ("KILLED", first, [(first, "FINISHED")])
    finished = again(command, home)
    assert json.loads(finished.stdout) == result
    assert finished.stderr.splitlines() == [f"run {result['run']} is finished already; --fresh starts over"]
