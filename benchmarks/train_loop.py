"""Steady training speed against a bare PyTorch loop over tensors in memory: at least 0.9; on a GPU, 0.95 of synthetic.

python benchmarks/train_loop.py            both on this machine's cores
python benchmarks/train_loop.py --gpu      one GPU; the bare loop trains on one synthetic batch that lies there

Both sides train the same network with the same augmentation and optimizer, under the same settings of malloc, and
validate after each epoch (not counted).
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import mlflow
import numpy as np
import timm
import torch
import torch.nn.functional as F
from common import end, glint
from timm.optim import create_optimizer_v2

from glint.core.manifest import Manifest
from glint.core.recipe import Preprocessing
from glint.pipelines.boards import write_boards
from glint.pipelines.fitting import ALLOCATOR
from glint.pipelines.targets import labelled_table, target_array
from glint.vision.backbone import native_bf16
from glint.vision.transforms import augment, load_image, normalise, sample_seed

EPOCHS, ROUNDS, SIZE = 3, 2, 128
AUGMENTATION = {"policy": "dihedral", "shift": 0.2, "fill": "wrap", "brightness": 0.1}
parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--gpu", action="store_true")
parser.add_argument("--backbone", default="resnet10t")
parser.add_argument("--batch", type=int, default=32)
options = parser.parse_args()
if not ALLOCATOR.items() <= os.environ.items():  # glibc reads them at the start of a process
    os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ALLOCATOR)
device = torch.device("cuda" if options.gpu else "cpu")
RECIPE = f"""\
name: loop
backbone: {options.backbone}
weights: none
preprocessing: {{image_size: {SIZE}}}
augmentation: {{policy: dihedral, shift: 0.2, fill: wrap, brightness: 0.1}}
optimisation: {{epochs: {EPOCHS}, batch_size: {options.batch}}}
"""


def batches(images: torch.Tensor, targets: torch.Tensor, epoch: int):
    """An epoch of the bare loop: augmented batches in random order; on a GPU, one synthetic batch again and again."""
    steps = -(-len(images) // options.batch)
    if options.gpu:
        pixels = torch.randint(0, 256, (options.batch, 3, SIZE, SIZE), dtype=torch.uint8, device=device)
        for _ in range(steps):
            yield pixels, targets[: options.batch].to(device)
        return
    order = np.resize(np.random.default_rng((0, epoch)).permutation(len(images)), steps * options.batch)
    for rows in order.reshape(steps, options.batch):
        varied = [augment(images[row], seed=sample_seed(0, epoch, str(row)), **AUGMENTATION) for row in rows]
        yield torch.stack(varied), targets[rows]


def bare_epochs(images: torch.Tensor, targets: torch.Tensor) -> list[float]:
    """Seconds of each epoch of a plain loop."""
    torch.manual_seed(0)
    model = timm.create_model(options.backbone, num_classes=7).to(device, memory_format=torch.channels_last)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=native_bf16(device))
    seconds = []
    for epoch in range(EPOCHS):
        model.train()
        total, started = torch.zeros((), device=device), time.perf_counter()
        for pixels, truth in batches(images, targets, epoch):
            with autocast:
                logits = model(normalise(pixels, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
            loss = F.cross_entropy(logits.float(), truth, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach()
        float(total)  # waits for a GPU
        seconds.append(time.perf_counter() - started)
    return seconds


with tempfile.TemporaryDirectory() as directory:
    home = Path(directory)
    boards, file = home / "boards", home / "manifest.parquet"
    write_boards(boards, 2100, size=SIZE)
    splits = ("--group", "lot", "--val-groups", "L07", "--test-groups", "L03")
    glint("snapshot", boards, "--labels", boards / "labels.csv", *splits, "--out", file, home=home)
    (home / "recipe.yaml").write_text(RECIPE)
    table = labelled_table(Manifest.open(file), "train")
    paths = [Path(uri.removeprefix("file://")) for uri in table["uri"].to_pylist()]
    images = torch.stack([load_image(path.read_bytes(), Preprocessing(image_size=SIZE)).pixels for path in paths])
    targets = torch.from_numpy(target_array(table).copy())
    steady: dict[str, list[float]] = {"glint": [], "bare": []}
    for number in range(ROUNDS):
        more = ("--name", f"round{number}", *(["--gpu"] if options.gpu else []))
        run = glint("train", "--recipe", home / "recipe.yaml", "--manifest", file, *more, home=home)
        client = mlflow.MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
        seconds = [point.value for point in client.get_metric_history(run["mlflow_run"], "train_s")]
        steady["glint"] += seconds[1:]  # the first epoch waits for the stream to start
        steady["bare"] += bare_epochs(images, targets)[1:]
speeds = {side: len(images) / statistics.median(seconds) for side, seconds in steady.items()}
end(
    "train_loop",
    round(speeds["glint"] / speeds["bare"], 3),
    "of the speed on synthetic data" if options.gpu else "of the speed of a bare loop",
    "at least 0.95" if options.gpu else "at least 0.9",
    {
        "images_per_s": {side: round(speed, 1) for side, speed in speeds.items()},
        "epoch_s": {side: [round(value, 2) for value in seconds] for side, seconds in steady.items()},
        "backbone": options.backbone,
        "batch": options.batch,
        "device": str(device),
        "bf16": native_bf16(device),
    },
)
