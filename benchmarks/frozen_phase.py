"""What 20 epochs of the frozen phase cost, in passes of the backbone over the data: at most 1.3.

python benchmarks/frozen_phase.py

glint trains the head of a resnet18 for 20 epochs on generated boards, which lie decoded in Ray's object store; the
other side is the same backbone in a bare PyTorch loop over the same images in memory, forwards once, in the precision
that glint chooses on this machine.
"""

import statistics
import tempfile
import time
from pathlib import Path

import mlflow
import safetensors.torch
import timm
import torch
from common import end, glint

from glint.core.manifest import Manifest
from glint.core.recipe import Preprocessing
from glint.pipelines.boards import write_boards
from glint.vision.backbone import native_bf16
from glint.vision.transforms import load_image, normalise

BACKBONE, SIZE, EPOCHS, ROUNDS = "resnet18", 160, 20, 3
RECIPE = f"""\
name: frozen
backbone: {BACKBONE}
weights: WEIGHTS
strategy: probe
preprocessing: {{image_size: {SIZE}}}
frozen: {{epochs: {EPOCHS}}}
"""


def bare_pass(model: torch.nn.Module, images: torch.Tensor) -> float:
    """Seconds of one pass over uint8 images in batches of 64."""
    started = time.perf_counter()
    bf16 = native_bf16(torch.device("cpu"))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        for batch in images.split(64):
            model.forward_features(normalise(batch, (0.5,) * 3, (0.25,) * 3))
    return time.perf_counter() - started


with tempfile.TemporaryDirectory() as directory:
    home = Path(directory)
    boards, manifest = home / "boards", home / "manifest.parquet"
    write_boards(boards, 1400, size=SIZE)
    splits = ("--group", "lot", "--val-groups", "L07", "--test-groups", "L03")
    glint("snapshot", boards, "--labels", boards / "labels.csv", *splits, "--out", manifest, home=home)
    torch.manual_seed(0)
    model = timm.create_model(BACKBONE).eval().to(memory_format=torch.channels_last)
    safetensors.torch.save_file(timm.create_model(BACKBONE).state_dict(), home / "weights.safetensors")
    (home / "recipe.yaml").write_text(RECIPE.replace("WEIGHTS", str(home / "weights.safetensors")))
    table = Manifest.open(manifest).table(["uri"], split="train", labelled=True)
    paths = [Path(uri.removeprefix("file://")) for uri in table["uri"].to_pylist()]
    images = torch.stack([load_image(path.read_bytes(), Preprocessing(image_size=SIZE)).pixels for path in paths])
    phases, passes = [], []
    for number in range(ROUNDS):
        passes.append(bare_pass(model, images))
        name = f"round{number}"
        run = glint("train", "--recipe", home / "recipe.yaml", "--manifest", manifest, "--name", name, home=home)
        client = mlflow.MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
        phases.append(client.get_run(run["mlflow_run"]).data.metrics["train_s"])
    passes.append(bare_pass(model, images))
ratio = statistics.median(phases) / statistics.median(passes)
end(
    "frozen_phase",
    round(ratio, 2),
    "passes of the backbone",
    "at most 1.3",
    {
        "phase_s": [round(seconds, 2) for seconds in phases],
        "bare_pass_s": [round(seconds, 2) for seconds in passes],
        "epochs": EPOCHS,
        "images": len(images),
    },
)
