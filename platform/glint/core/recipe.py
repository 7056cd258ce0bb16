"""The recipe: the science of one training run, frozen, and saved with the model that it made."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, ValidationError

from glint.core.errors import GlintError
from glint.core.policy import Policy

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Preprocessing(_Section):
    """How bytes become the model's input; the same for training, evaluation, batch and online."""

    image_size: int = Field(default=224, ge=16, le=2048, description="side of the square input, pixels")
    resize: Literal["squash", "crop"] = Field(
        default="squash", description="squash: the whole image, stretched to a square; crop: its centre"
    )
    mean: tuple[float, float, float] = Field(default=IMAGENET_MEAN, description="by channel, of values in 0..1")
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = IMAGENET_STD


class Augmentation(_Section):
    """How a training image is varied, seeded by run, epoch and image."""

    policy: Literal["none", "flip", "dihedral"] = Field(
        default="flip", description="flip: left-right; dihedral: the eight flips and quarter turns"
    )
    shift: float = Field(default=0.0, ge=0, le=0.5, description="largest translation, as a share of the side")
    fill: Literal["reflect", "wrap"] = Field(default="reflect", description="what a shift brings in at the border")
    brightness: float = Field(default=0.0, ge=0, le=1)
    contrast: float = Field(default=0.0, ge=0, le=1)


class Optimisation(_Section):
    """AdamW under a cosine schedule with a linear warm-up, stepped by batch."""

    epochs: int = Field(default=20, ge=1)
    batch_size: int = Field(default=64, ge=1, description="images a step, over all workers")
    lr: float = Field(default=1e-3, gt=0, description="peak learning rate")
    weight_decay: float = Field(default=0.05, ge=0)
    warmup_epochs: float = Field(default=1.0, ge=0)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)


class Recipe(_Section):
    """One training run, whole. Unknown keys are refused."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$", description="of the registered model")
    backbone: str = Field(description="a name of timm.list_models()")
    weights: str = Field(default="hub", description="hub, none (from scratch), or the path of a weights file")
    preprocessing: Preprocessing = Preprocessing()
    augmentation: Augmentation = Augmentation()
    optimisation: Optimisation = Optimisation()
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="auto: bf16 where the hardware multiplies it natively"
    )
    seed: int = Field(default=0, ge=0)
    policy: Policy = Policy()

    @property
    def digest(self) -> str:
        """What identifies this recipe, whatever the order of its keys in the file."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()[:16]


def read_recipe(path: Path, overrides: tuple[str, ...] = ()) -> Recipe:
    """Read a YAML recipe and apply `key.sub=value` overrides (values in YAML); GlintError says which field is wrong."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise GlintError(f"--recipe {path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise GlintError(f"--recipe {path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise GlintError(f"--recipe {path} must be a mapping of fields, got {type(document).__name__}")
    for override in overrides:
        _override(document, override)
    try:
        return Recipe.model_validate(document)
    except ValidationError as error:
        raise GlintError(describe(error, "recipe")) from None


def describe(error: ValidationError, root: str) -> str:
    """The first complaint of a validation error in one line: field, what is wrong, value."""
    first = error.errors()[0]
    field = ".".join([root, *(str(part) for part in first["loc"])])
    if first["type"] == "extra_forbidden":
        return f"{field} is not a field of the {root}; {_fields_beside(error, first['loc'])}"
    if first["type"] == "missing":
        return f"{field} is missing"
    return f"{field}: {first['msg'][0].lower()}{first['msg'][1:]}, got {first['input']!r}"


def _fields_beside(error: ValidationError, location: tuple[int | str, ...]) -> str:
    model: Any = Recipe
    for part in location[:-1]:
        model = model.model_fields[part].annotation
    return f"its fields are {', '.join(model.model_fields)}"


def _override(document: dict[str, Any], override: str) -> None:
    key, sign, text = override.partition("=")
    if not sign or not key.strip():
        raise GlintError(f"--set {override!r} must be key=value, for example optimisation.epochs=5")
    *parents, leaf = key.strip().split(".")
    section = document
    for parent in parents:
        section = section.setdefault(parent, {})
        if not isinstance(section, dict):
            raise GlintError(f"--set {override!r}: recipe.{parent} is not a section")
    try:
        section[leaf] = yaml.safe_load(text)
    except yaml.YAMLError:
        raise GlintError(f"--set {override!r}: {text!r} is not a YAML value") from None
