"""The same train command with the same seed and --fresh gives the same validation score, and the same weights.

python benchmarks/repeatable.py
"""

import hashlib
import tempfile
from pathlib import Path

from common import end, glint

from glint.pipelines.boards import write_boards

RECIPE = Path(__file__).resolve().parents[1] / "configs" / "recipes" / "boards.yaml"
SHORT = ("--set", "optimisation.epochs=8", "--fresh")

with tempfile.TemporaryDirectory() as directory:
    home = Path(directory)
    images, manifest = home / "boards", home / "manifest.parquet"
    write_boards(images, 1400, size=96)
    splits = ("--group", "lot", "--val-groups", "L07", "--test-groups", "L03")
    glint("snapshot", images, "--labels", images / "labels.csv", *splits, "--out", manifest, home=home)
    runs, weights = [], []
    for _ in range(2):
        runs.append(glint("train", "--recipe", RECIPE, "--manifest", manifest, *SHORT, home=home))
        file = Path(runs[-1]["bundle"]) / "weights.safetensors"
        weights.append(hashlib.sha256(file.read_bytes()).hexdigest())
scores = [run["metrics"]["val_macro_f1"] for run in runs]
end(
    "repeatable",
    abs(scores[0] - scores[1]) if weights[0] == weights[1] else 1.0,
    "difference of validation macro-F1; 1 where the weights differ",
    "0",
    {"first": runs[0]["metrics"], "second": runs[1]["metrics"], "same_weights": weights[0] == weights[1]},
)
