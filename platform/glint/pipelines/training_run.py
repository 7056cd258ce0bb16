"""What a training is, and what it came to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from glint.adapters.images import Images
from glint.adapters.registry import Registry
from glint.core.manifest import Manifest
from glint.core.recipe import Recipe
from glint.pipelines.fitting import ONE_WORKER, Workers
from glint.pipelines.weights import exact_weights, resolve_weights, weights_identity
from glint.vision.decode import Limits


class Trained(BaseModel):
    """What a training run came to."""

    model_config = ConfigDict(frozen=True)

    run: str
    mlflow_run: str
    model: str
    version: str
    bundle: str
    bundle_digest: str
    best_epoch: int
    metrics: dict[str, float]
    epochs: int
    train_images: int
    bad_images: int
    seconds: float
    images_per_s: float | None = Field(description="None where the run was too short to tell")
    resumed: bool = False

    @property
    def model_uri(self) -> str:
        """How to name this version to the other commands."""
        return f"models:/{self.model}/{self.version}"


@dataclass(frozen=True)
class TrainingRun:
    """A recipe on a manifest: the same two continue the same run."""

    recipe: Recipe
    manifest: Manifest
    images: Images
    limits: Limits
    registry: Registry
    home: Path
    name: str | None = None
    workers: Workers = ONE_WORKER

    @cached_property
    def exact_recipe(self) -> Recipe:
        """The recipe, with an alias that it begins with as the version that this means now: what the bundle keeps."""
        return self.recipe.model_copy(update={"weights": exact_weights(self.recipe.weights, self.registry)})

    @cached_property
    def weights(self) -> str:
        """The recipe's weights: none, hub, hub:TAG, or a path on this machine, where they have been fetched to."""
        return resolve_weights(self.exact_recipe.weights, self.images, self.registry, self.home / "weights")

    @cached_property
    def identity(self) -> dict[str, str]:
        """What tells this run from others: its recipe, its manifest and the weights to begin with."""
        return self.known_identity | {"weights": weights_identity(self.weights)}

    @property
    def known_identity(self) -> dict[str, str]:
        """What is known of it before weights are looked up."""
        return {"recipe": self.recipe.digest, "manifest": self.manifest.digest}

    @cached_property
    def id(self) -> str:
        """--name, or the hash of what it is."""
        if self.name:
            return self.name
        identity = hashlib.sha256("\0".join(self.identity.values()).encode()).hexdigest()[:12]
        return f"{self.recipe.name}-{identity}"

    @property
    def multi_label(self) -> bool:
        """Whether an image may have any number of labels."""
        return self.recipe.task == "multi"

    @property
    def directory(self) -> Path:
        """Where the run keeps checkpoints and its bundle."""
        return self.home / "runs" / self.id
