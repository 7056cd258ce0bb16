"""What a registered model has learned from: the manifest of its own training, and of those whose weights it began with.

origins("boards", "3", registry)  -> of models:/boards/3, then of models:/boards/2 where its recipe has that as weights
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from glint.adapters.files import local_path
from glint.adapters.registry import Registry
from glint.core.errors import GlintError
from glint.core.manifest import Manifest
from glint.vision.backbone import is_hub
from glint.vision.bundle import Bundle


@dataclass(frozen=True)
class Origin:
    """A model, or a file of weights, that a training began with or ended in, and what that had learned from."""

    called: str
    digest: str | None = None
    """Of the manifest that it was trained on; None where that is not known."""
    manifest: Manifest | None = None
    """That manifest, None where it is not at hand."""
    foreign: bool = False
    """Whether it is a bare file of weights, which says nothing of what it was trained on."""

    @property
    def absence(self) -> str:
        """Why there is no manifest, for a person."""
        if self.digest is None:
            return f"{self.called} is not there any more"
        return f"{self.called} was trained on manifest {self.digest[:16]}, which is not at hand"


def origins(name: str, version: str, registry: Registry) -> tuple[Origin, ...]:
    """The version itself, then by `weights` of its recipe the model that it began with, and so on.

    The hub's weights are none of them. A bundle's recipe names the version that an alias meant when training began.
    """
    found: dict[str, Origin] = {}
    weights = f"models:/{name}/{version}"
    while not (weights in found or weights == "none" or is_hub(weights)):
        found[weights], weights = _origin(weights, registry)
    return tuple(found.values())


def _origin(weights: str, registry: Registry) -> tuple[Origin, str]:
    """What a model or file of weights has learned from, and the weights that it began with itself."""
    if _is_file(weights):
        return Origin(weights, foreign=True), "none"
    if weights.startswith("models:/") and "@" in weights:  # a bundle names versions: what this one meant is not known
        return Origin(weights), "none"
    try:
        directory, kept = _bundle(weights, registry)
        info = Bundle(directory).info
    except GlintError:
        return Origin(weights), "none"
    kept = kept or registry.manifest_of(info.manifest)
    manifest = Manifest.open(kept) if kept else None
    at_hand = manifest if manifest and manifest.digest == info.manifest else None
    return Origin(weights, info.manifest, at_hand), info.recipe.weights


def _bundle(weights: str, registry: Registry) -> tuple[Path, Path | None]:
    """Where a model's bundle lies, and the manifest that a registered one's run has kept."""
    if not weights.startswith("models:/"):
        return Path(local_path(weights)), None
    model = registry.find(weights)
    return model.bundle, registry.training_manifest(model.name, model.version)


def _is_file(weights: str) -> bool:
    """Whether they are a bare file, here or elsewhere."""
    if weights.startswith("models:/"):
        return False
    path = Path(local_path(weights))
    return weights.startswith("az://") or path.is_file() or bool(path.suffix and not path.is_dir())
