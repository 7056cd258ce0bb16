"""The model that online.py serves: a resnet18 at 224 px, trained by glint so that it may choose 8 bits by its own rule.

It tells four kinds of generated boards apart by their looks. 600 boards, each a group of its own, are for validation:
with fewer than 368 groups glint does not try 8 bits.
"""

from __future__ import annotations

import csv
from pathlib import Path

from common import glint
from PIL import Image

from glint.vision.boards import CLASSES, LOTS, draw_board

NAME, KINDS, EACH, EACH_VALIDATION, EACH_TEST = "online", ("L02", "L04", "L05", "L10"), 300, 150, 10
RECIPE = f"""
name: {NAME}
backbone: resnet18
weights: none
preprocessing:
  image_size: 224
augmentation:
  policy: dihedral
optimisation:
  epochs: 4
  batch_size: 32
  warmup_epochs: 0.5
"""


def train(scratch: Path, home: Path) -> str:
    """The registered model's address; trained unless an earlier run has left it."""
    boards, manifest = scratch / "kinds", scratch / "kinds.parquet"
    names = draw(boards)
    recipe = scratch / "recipe.yaml"
    recipe.write_text(RECIPE)
    split = {"--val-groups": names["val"], "--test-groups": names["test"]}
    groups = [word for option, chosen in split.items() for word in (option, ",".join(chosen))]
    glint(
        "snapshot", boards, "--labels", boards / "labels.csv", "--group", "board", *groups, "--out", manifest, home=home
    )
    trained = glint("train", "--recipe", recipe, "--manifest", manifest, home=home)
    return f"models:/{NAME}/{trained['version']}"


def draw(folder: Path) -> dict[str, list[str]]:
    """Write the boards and labels.csv; the names of those for validation and for the test."""
    splits: dict[str, list[str]] = {"val": [], "test": []}
    rows = []
    for kind, lot in enumerate(lot for lot in LOTS if lot.name in KINDS):
        for number in range(EACH):
            board = f"{lot.name}-{number:03}"
            path = folder / lot.name / f"{board}.jpg"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                label = CLASSES[number % len(CLASSES)]
                picture = draw_board(label, lot, number, seed=EACH * kind + number, size=224)
                Image.fromarray(picture).save(path, quality=90)
            rows.append((f"{lot.name}/{board}.jpg", lot.name, board))
            if number < EACH_VALIDATION + EACH_TEST:
                splits["val" if number < EACH_VALIDATION else "test"].append(board)
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "board"), *rows])
    return splits
