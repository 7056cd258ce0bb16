"""Training that is killed and goes on: its score beside that of the same training left alone. Difference: 0.

python benchmarks/kill_training.py

Killed with SIGKILL in the middle of an epoch: the training worker (training goes on by itself), then, in another run,
the driver (the same command goes on). Node failures are the subject of tests/pipelines/test_interruption.py.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from common import GLINT, end, glint

from glint.pipelines.boards import write_boards

RECIPE = Path(__file__).resolve().parents[1] / "configs" / "recipes" / "boards.yaml"
SHORT = ("--set", "optimisation.epochs=6")


def children(pid: int) -> list[int]:
    """All processes below one."""
    listed = subprocess.run(["ps", "--ppid", str(pid), "-o", "pid="], stdout=subprocess.PIPE, text=True, check=False)
    found = [int(line) for line in listed.stdout.split()]
    return found + [below for child in found for below in children(child)]


def workers(pid: int) -> list[int]:
    """The Ray Train workers below a driver."""
    return [child for child in children(pid) if b"RayTrainWorker" in Path(f"/proc/{child}/cmdline").read_bytes()]


def killed(victim: str, home: Path, *arguments: str | Path) -> dict[str, object]:
    """Train, kill after the third epoch's end, and go on where that does not happen by itself."""
    command = [str(GLINT), "train", *map(str, arguments), "--json"]
    process = subprocess.Popen(
        command, env={**os.environ, "GLINT_HOME": str(home)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        print(line, end="", file=sys.stderr)
        if line.startswith("epoch 3/"):
            for pid in [process.pid] if victim == "driver" else workers(process.pid):
                print(f"kill -9 {pid} ({victim})", file=sys.stderr)
                os.kill(pid, signal.SIGKILL)
    out, _ = process.communicate()
    if victim == "driver":
        return glint("train", *arguments, home=home)
    if process.returncode:
        sys.exit(f"training ended with {process.returncode} after its worker was killed")
    return dict(json.loads(out))


with tempfile.TemporaryDirectory() as directory:
    home = Path(directory)
    boards, manifest = home / "boards", home / "manifest.parquet"
    write_boards(boards, 1400, size=96)
    splits = ("--group", "lot", "--val-groups", "L07", "--test-groups", "L03")
    glint("snapshot", boards, "--labels", boards / "labels.csv", *splits, "--out", manifest, home=home)
    common = ("--recipe", RECIPE, "--manifest", manifest, *SHORT)
    runs = {"left alone": glint("train", *common, "--name", "alone", home=home)}
    for victim in ("worker", "driver"):
        runs[victim] = killed(victim, home, *common, "--name", victim)
scores = {name: run["metrics"]["val_macro_f1"] for name, run in runs.items()}
end(
    "kill_training",
    max(abs(score - scores["left alone"]) for score in scores.values()),
    "largest difference of validation macro-F1",
    "0",
    {"val_macro_f1": scores, "seconds": {name: run["seconds"] for name, run in runs.items()}},
)
