"""Transfer is real: what a backbone from generated boards is worth with 25 labelled crops of real boards a class.

python benchmarks/few_shot_transfer.py --data ../shared/data/deeppcb

The crops are those of deeppcb.py: black copper on white, as the inspection machine has made them. So the generated
boards are drawn as their copper alone, of lots whose widths and etching differ. A backbone is trained on them. Then,
for each of three seeds, 25 crops a class are drawn from the training lots, and 10 from the validation lots to choose
the epoch by, and one recipe is trained on them three times: from that model, from its backbone with a new head, and
from scratch. Both know the same seven classes, so the head is transferred too unless it is taken away. The test lots
are scored once for each model; everything was chosen on the validation lots.
"""

import argparse
import csv
import random
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import cycle
from pathlib import Path
from statistics import mean

from common import SHARED, Clock, end, glint
from PIL import Image
from safetensors.torch import load_file, save_file

from glint.vision.boards import LOTS, BoardImage, draw_copper_layer, plan_boards

RECIPES = Path(__file__).resolve().parents[1] / "configs" / "recipes"
VAL_LOTS, TEST_LOTS = "50600,90100", "12100,92000,44000,12000"
CROPS = {"train": 25, "val": 10}
SEEDS = (0, 1, 2)
NUM_BOARDS = 4200
GAPS, ROUGHNESS = (0.06, 0.09, 0.12), (0.02, 0.12, 0.22)
BARE_LOTS = {
    lot.name: replace(lot, trace_width=0.05 + 0.01 * i, gap=gap, roughness=roughness)
    for i, (lot, gap, roughness) in enumerate(zip(LOTS, cycle(GAPS), cycle(ROUGHNESS[::-1] + ROUGHNESS), strict=False))
}


def draw_boards(folder: Path, num_boards: int) -> None:
    """Generated boards as black copper on white, a folder for each class, with labels.csv."""
    plan = plan_boards(num_boards)
    with ProcessPoolExecutor() as pool:
        list(pool.map(partial(draw_one, folder), plan, chunksize=50))
    write_labels(folder / "labels.csv", [{"path": x.path, "label": x.label, "lot": x.lot.name} for x in plan])


def draw_one(folder: Path, board: BoardImage) -> None:
    """Draw one of them."""
    path = folder / board.path
    path.parent.mkdir(parents=True, exist_ok=True)
    lot = BARE_LOTS[board.lot.name]
    copper = draw_copper_layer(board.label, lot, board.board_number, board.seed, size=128)
    Image.fromarray(255 - copper).save(path, quality=90)


def few_crops(labels: Path, seed: int) -> list[dict[str, str]]:
    """The rows of a label file: a few of each class for training and for validation, and all of the test lots."""
    with labels.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    random.Random(seed).shuffle(rows)
    chosen = [row for row in rows if row["lot"] in TEST_LOTS.split(",")]
    for split, number in CROPS.items():
        for label in sorted({row["label"] for row in rows}):
            fitting = [row for row in rows if row["label"] == label and split_of(row["lot"]) == split]
            chosen += fitting[:number]
    return chosen


def split_of(lot: str) -> str:
    """The split that a lot of the real boards belongs to."""
    return "val" if lot in VAL_LOTS.split(",") else "test" if lot in TEST_LOTS.split(",") else "train"


def write_labels(path: Path, rows: list[dict[str, str]]) -> None:
    """Write a label file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def macro_f1(manifest: Path, weights: str, seed: int, home: Path) -> float:
    """Train on a few crops, beginning with these weights, and score the test lots."""
    settings = ("--set", f"weights={weights}", "--set", f"seed={seed}")
    made = glint("train", "--recipe", RECIPES / "few_shot.yaml", "--manifest", manifest, *settings, home=home)
    model = f"models:/{made['model']}/{made['version']}"
    report = home / f"report-{made['version']}"
    return float(glint("evaluate", "--model", model, "--manifest", manifest, "--report", report, home=home)["macro_f1"])


def without_head(bundle: Path, file: Path) -> str:
    """Write the weights of a bundle but those of its head, and say where; of resnets it is `fc`."""
    weights = load_file(bundle / "weights.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith("fc.")}
    assert len(kept) == len(weights) - 2
    save_file(kept, file)
    return str(file)


def main() -> None:
    """Make the backbone, then train and score both sides with each seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED / "data" / "deeppcb")
    data, clock = parser.parse_args().data, Clock()
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        boards, manifest = home / "boards", home / "boards.parquet"
        draw_boards(boards, NUM_BOARDS)
        splits = ("--group", "lot", "--val-groups", "L08", "--test-groups", "L03")
        glint("snapshot", boards, "--labels", boards / "labels.csv", *splits, "--out", manifest, home=home)
        made = glint("train", "--recipe", RECIPES / "pretraining.yaml", "--manifest", manifest, home=home)
        pretrained = f"models:/{made['model']}/{made['version']}"
        pretraining_s = clock.seconds()
        backbone = without_head(Path(made["bundle"]), home / "backbone.safetensors")
        scores: dict[str, list[float]] = {pretrained: [], backbone: [], "none": []}
        splits = ("--group", "lot", "--val-groups", VAL_LOTS, "--test-groups", TEST_LOTS)
        for seed in SEEDS:
            labels, manifest = home / f"labels-{seed}.csv", home / f"crops-{seed}.parquet"
            write_labels(labels, few_crops(data / "labels.csv", seed))
            glint("snapshot", data, "--labels", labels, *splits, "--out", manifest, home=home)
            for weights, reached in scores.items():
                reached.append(round(macro_f1(manifest, weights, seed, home), 4))
    transferred, new_head, scratch = scores[pretrained], scores[backbone], scores["none"]
    end(
        "few_shot_transfer",
        round(100 * (mean(transferred) - mean(scratch)), 1),
        "points of macro-F1",
        "at least 10 points above the same training from scratch, mean of 3 seeds",
        {
            "transferred_macro_f1": transferred,
            "new_head_macro_f1": new_head,
            "new_head_points": round(100 * (mean(new_head) - mean(scratch)), 1),
            "scratch_macro_f1": scratch,
            "crops_a_class": CROPS,
            "generated_boards": NUM_BOARDS,
            "pretraining_val_macro_f1": round(made["metrics"]["val_macro_f1"], 4),
            "pretraining_s": pretraining_s,
            "all_s": clock.seconds(),
        },
    )


if __name__ == "__main__":
    main()
