"""A task that a tiny network knows at once, which of three colours a picture has, for tests that need several models.

pictures(folder)                       270 little files in groups, and their manifest
bundle = colour_bundle(directory, manifest)
bundle = colour_bundle(directory, manifest, blind_to="red")
register(settings, "colours", bundle)  -> "1"
"""

from __future__ import annotations

from pathlib import Path

import mlflow
import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from glint.adapters.registry import Registry
from glint.core.manifest import SCHEMA, Manifest, write_manifest
from glint.core.policy import Policy
from glint.core.recipe import Preprocessing, Recipe
from glint.vision.backbone import build_model
from glint.vision.bundle import Bundle, BundleInfo, write_bundle
from glint.vision.predictor import Predictor
from glint.vision.selftest import write_selftest

CLASSES = ("blue", "green", "red")
SPLITS = {"train": 20, "val": 10, "test": 60}
"""Groups in each, with an image of each class."""


def pictures(folder: Path) -> Manifest:
    """Draw the pictures into `folder`, and write manifest.parquet beside it."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    rows = []
    for split, num_groups in SPLITS.items():
        for number in range(num_groups):
            for label in CLASSES:
                path = folder / f"{split}-{number:02}-{label}.png"
                pixels = random.integers(0, 120, size=(32, 32, 3), dtype=np.uint8)
                pixels[..., 2 - CLASSES.index(label)] += 60
                Image.fromarray(pixels).save(path)
                rows.append(row(path, label, f"{split}-{number:02}", split))
    return write_manifest(folder.with_suffix(".parquet"), [pa.Table.from_pylist(rows)], source=str(folder))


def row(path: Path, label: str, group: str, split: str) -> dict[str, object]:
    """A row of a manifest."""
    values = (path.as_uri(), None, path.stat().st_size, [label], group, split)
    return dict(zip(SCHEMA.names, values, strict=True))


def colour_bundle(directory: Path, manifest: Manifest, blind_to: str | None = None) -> Bundle:
    """A bundle that tells the colours apart, but for one where `blind_to` names it; with a self-test."""
    recipe = Recipe(
        name="colours",
        backbone="test_resnet",
        weights="none",
        preprocessing=Preprocessing(image_size=32),
        policy=Policy(review_below=0.4, accept_classes=("blue", "green")),
    )
    info = BundleInfo(
        name=recipe.name,
        backbone=recipe.backbone,
        classes=CLASSES,
        preprocessing=recipe.preprocessing,
        recipe=recipe,
        manifest=manifest.digest,
        metrics={},
    )
    torch.manual_seed(0)
    model = build_model(recipe.backbone, len(CLASSES), "none").eval()
    bundle = write_bundle(directory, info, recipe.policy, model.state_dict())
    train = [Path(uri.removeprefix("file://")) for uri in manifest.table(["uri"], split="train")["uri"].to_pylist()]
    predictor = Predictor(bundle)
    images = torch.stack([predictor.prepare(path.read_bytes()).pixels for path in train])
    weights = dict(model.state_dict()) | _head(model, images, torch.arange(len(train)) % len(CLASSES))
    if blind_to:
        weights["fc.bias"][CLASSES.index(blind_to)] -= 100
    predictor = Predictor(write_bundle(directory, info, recipe.policy, weights))
    shares = predictor.raw_score(images[:4])
    write_selftest(directory, [(path.read_bytes(), row) for path, row in zip(train[:4], shares, strict=True)])
    return predictor.bundle


def _head(model: torch.nn.Module, images: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
    """The least-squares head on the features of a random backbone, which is all that this task takes."""
    from glint.vision.transforms import normalise

    with torch.no_grad():
        settings = Preprocessing()
        features = model.forward_head(  # type: ignore[operator]
            model.forward_features(normalise(images, settings.mean, settings.std)), pre_logits=True
        )
    scale = features.std(0) + 1e-6
    padded = torch.cat([(features - features.mean(0)) / scale, torch.ones(len(features), 1)], dim=1)
    wanted = 8 * torch.nn.functional.one_hot(targets, len(CLASSES)).float()
    found = torch.linalg.lstsq(padded.T @ padded + torch.eye(padded.shape[1]), padded.T @ wanted).solution
    weight = (found[:-1] / scale[:, None]).T
    return {"fc.weight": weight, "fc.bias": found[-1] - weight @ features.mean(0)}


def register(registry: Registry, name: str, bundle: Bundle) -> str:
    """Make a bundle in a directory .../artifacts/bundle a version of a registered model, without copying it."""
    run = registry.open_run(f"{name}-{bundle.directory}", None, {}, {})
    client = mlflow.MlflowClient(registry.tracking_uri)
    if name not in dict(registry.models()):
        client.create_registered_model(name)
    return str(client.create_model_version(name, bundle.directory.parents[1].as_uri(), run).version)
