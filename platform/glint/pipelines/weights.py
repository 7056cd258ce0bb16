"""Where a run's first weights come from, found by the driver before any worker starts.

none | hub | hub:TAG | PATH | az://CONTAINER/KEY | models:/NAME@ALIAS | models:/NAME/VERSION
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from glint.adapters.files import local_path
from glint.adapters.images import Images
from glint.adapters.registry import RegisteredModel, Registry
from glint.core.errors import GlintError, ImageError
from glint.vision.backbone import is_hub
from glint.vision.bundle import Bundle

CHOICES = (
    "none, hub, hub:TAG, a file or bundle directory, az://CONTAINER/KEY, models:/NAME@ALIAS or models:/NAME/VERSION"
)


def exact_weights(weights: str, registry: Registry) -> str:
    """A recipe's weights, an alias as the version that it means now; raises GlintError where there is none."""
    if not weights.startswith("models:/"):
        return weights
    model = _registered(weights, registry)
    return f"models:/{model.name}/{model.version}"


def resolve_weights(weights: str, images: Images, registry: Registry, cache: Path) -> str:
    """A recipe's weights as `build_model` takes them: `none`, `hub`, `hub:TAG`, or a path that exists on this machine.

    Blobs are downloaded below `cache`, once for each etag, and a registered version's bundle is fetched. Raises
    GlintError for what is not there.
    """
    if weights == "none" or is_hub(weights):
        return weights
    if weights.startswith("models:/"):
        return str(_registered(weights, registry).bundle)
    if weights.startswith("az://"):
        return _downloaded(weights, images, cache)
    path = Path(local_path(weights))
    if not weights or not path.exists():
        raise GlintError(f"recipe.weights {weights!r} is not there; it must be {CHOICES}")
    return str(path)


def weights_identity(resolved: str) -> str:
    """What identifies resolved weights by their content, so that an alias that moves makes another run.

    The digest of a bundle, the SHA-256 of a file, and `none` and the hub's as they are.
    """
    path = Path(resolved)
    if resolved == "none" or is_hub(resolved):
        return resolved
    if path.is_dir():
        return Bundle(path).digest
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _registered(weights: str, registry: Registry) -> RegisteredModel:
    try:
        return registry.find(weights)
    except GlintError as error:
        raise GlintError(f"recipe.weights {weights!r}: {str(error).removeprefix(f'--model {weights!r} ')}") from None


def _downloaded(weights: str, images: Images, cache: Path) -> str:
    try:
        return str(images.download(weights, cache))
    except ImageError as error:
        if error.status == "changed":
            raise GlintError(f"recipe.weights {weights!r} was replaced while it was read; run it again") from None
        raise GlintError(f"recipe.weights: {error}") from None
