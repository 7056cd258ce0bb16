"""The bundle of a checkpoint: its policy calibrated, and its self-test made, on what training's validation saw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import safetensors.torch

from glint.core.errors import ImageError
from glint.core.manifest import Manifest
from glint.core.policy import fit_policy
from glint.pipelines.learner import TrainingPlan
from glint.pipelines.targets import target_array
from glint.vision.bundle import Bundle, BundleInfo, write_bundle
from glint.vision.selftest import MAX_SAMPLES, TOLERANCE, TOLERANCE_BF16, write_selftest


def checkpoint_bundle(
    directory: Path, plan: TrainingPlan, manifest: Manifest, best: ray.train.Checkpoint, metrics: dict[str, Any]
) -> Bundle:
    """Write the bundle of a checkpoint, which has `metrics`, to a directory."""
    recipe = plan.recipe
    info = BundleInfo(
        name=recipe.name,
        backbone=recipe.backbone,
        classes=plan.classes,
        preprocessing=recipe.preprocessing,
        recipe=recipe,
        manifest=manifest.digest,
        metrics={name: float(value) for name, value in metrics.items() if name.startswith("val_")},
    )
    with best.as_directory() as checkpoint:
        weights = safetensors.torch.load_file(Path(checkpoint) / "weights.safetensors")
        logits = safetensors.torch.load_file(Path(checkpoint) / "val.safetensors")["logits"]
    probabilities = (logits.sigmoid() if recipe.task == "multi" else logits.softmax(1)).numpy()
    readable = np.flatnonzero(~np.isnan(probabilities).any(1))
    policy = fit_policy(recipe.policy, probabilities[readable], target_array(plan.val)[readable], info.classes)
    bundle = write_bundle(directory, info, policy, weights)
    first = readable[: 4 * MAX_SAMPLES]
    read = plan.load.images.read_many(*(plan.val[name].take(first).to_pylist() for name in ("uri", "etag")))
    samples = [
        (bytes(data), probabilities[i]) for i, data in zip(first, read, strict=True) if not isinstance(data, ImageError)
    ]
    if samples:
        write_selftest(bundle.directory, samples, TOLERANCE_BF16 if metrics["bf16"] else TOLERANCE)
    return bundle
