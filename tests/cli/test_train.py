"""Interrupting a training as a person does, and going on."""

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from glint.core.manifest import Manifest

GLINT = str(Path(sys.executable).with_name("glint"))
RECIPE = """\
name: boards
backbone: test_resnet
weights: none
preprocessing: {image_size: 64}
optimisation: {epochs: 5, batch_size: 32}
"""


@pytest.mark.slow
def test_interrupted_training_says_how_to_go_on_and_goes_on(manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    command = [GLINT, "train", "--recipe", str(tmp_path / "recipe.yaml"), "--manifest", str(manifest.path), "--json"]
    environment = os.environ | {"GLINT_HOME": str(tmp_path / "home")}
    first = subprocess.Popen(
        command,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Whoever runs the tests in the background ignores Ctrl-C, and the command would inherit that.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    assert first.stderr is not None
    for line in first.stderr:
        if line.startswith("epoch 2/5"):
            break
    first.send_signal(signal.SIGINT)
    _, rest = first.communicate(timeout=120)
    assert first.returncode == 130, rest
    assert "interrupted; the same command continues where it stopped" in rest
    again = subprocess.run(command, env=environment, check=False, text=True, capture_output=True)
    assert again.returncode == 0, again.stderr
    result = json.loads(again.stdout)
    assert result["resumed"] is True
    epochs = [line.partition(":")[0] for line in again.stderr.splitlines() if line.startswith("epoch")]
    assert "epoch 1/5" not in epochs
    assert epochs[-1] == "epoch 5/5"
