"""The recipe: the science of one training run, frozen, and saved with the model that it made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, ValidationError, model_validator

from glint.core.errors import GlintError
from glint.core.policy import Policy

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a gray image (ITU-R BT.601)."""


class MisfitError(GlintError):
    """Fields of a recipe that are right one by one do not go together."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Preprocessing(_Section):
    """How bytes become the model's input; the same for training, evaluation, batch and online."""

    image_size: int = Field(default=224, ge=16, le=2048, description="side of the square input, pixels")
    resize: Literal["squash", "crop"] = Field(
        default="squash", description="squash: the whole image, stretched to a square; crop: its centre"
    )
    crop_pct: float = Field(default=1.0, gt=0.1, le=1, description="share of each side kept, about the image's centre")
    channels: Literal["rgb", "gray"] = Field(default="rgb", description="gray: one channel, the luma of ITU-R BT.601")
    mean: tuple[float, float, float] = Field(default=IMAGENET_MEAN, description="by channel, of values in 0..1")
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = IMAGENET_STD

    @property
    def num_channels(self) -> int:
        """1 or 3."""
        return 1 if self.channels == "gray" else 3

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation for each input channel; a gray one has the luma of the three."""
        if self.channels == "rgb":
            return self.mean, self.std
        return (_luma(self.mean),), (_luma(self.std),)


class Augmentation(_Section):
    """How a training image is varied, seeded by run, epoch and image."""

    policy: Literal["none", "flip", "dihedral"] = Field(
        default="flip", description="flip: left-right; dihedral: the eight flips and quarter turns"
    )
    auto: Literal["none", "rand_augment", "trivial_augment"] = Field(
        default="none", description="rand_augment: timm's; trivial_augment: torchvision's TrivialAugmentWide"
    )
    magnitude: int = Field(default=9, ge=0, le=10, description="of rand_augment")
    crop_scale: float = Field(default=1.0, gt=0, le=1, description="least share of the area that a random crop keeps")
    shift: float = Field(default=0.0, ge=0, le=0.5, description="largest translation, as a share of the side")
    fill: Literal["reflect", "wrap"] = Field(default="reflect", description="what a shift brings in at the border")
    brightness: float = Field(default=0.0, ge=0, le=1)
    contrast: float = Field(default=0.0, ge=0, le=1)
    erase: float = Field(default=0.0, ge=0, le=1, description="probability of erasing a random rectangle")
    mixup: float = Field(default=0.0, ge=0, description="alpha of mixup; 0 = off")
    cutmix: float = Field(default=0.0, ge=0, description="alpha of cutmix; with mixup, either by a coin")

    @property
    def num_mixed(self) -> int:
        """Images that mixup or CutMix makes one of, so that they belong to one batch; 1 without either."""
        return 2 if self.mixup or self.cutmix else 1

    @property
    def by_image(self) -> dict[str, Any]:
        """What is done to one image; erasing and mixing are done to batches."""
        return self.model_dump(exclude={"erase", "mixup", "cutmix"})


class Frozen(_Section):
    """The phase in which only the head learns, on features that the frozen backbone computes once."""

    epochs: int = Field(default=20, ge=1)
    batch_size: int = Field(default=256, ge=1)
    lr: float = Field(default=1e-2, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    views: int = Field(default=1, ge=1, le=64, description="1: the image as it is; k: and k - 1 augmented ones")


class Optimisation(_Section):
    """A timm optimizer under a cosine schedule with a linear warm-up, stepped by batch."""

    epochs: int = Field(default=20, ge=1)
    batch_size: int = Field(default=64, ge=1, description="images a step, over all workers")
    accumulate: int = Field(default=1, ge=1, description="parts of a step that go through the model one by one")
    optimizer: str = Field(default="adamw", description="a name of timm.optim.list_optimizers()")
    lr: float = Field(default=1e-3, gt=0, description="peak learning rate")
    weight_decay: float = Field(default=0.05, ge=0)
    layer_decay: float | None = Field(default=None, gt=0, le=1, description="learning rate of a layer over the next's")
    clip_norm: float | None = Field(default=None, gt=0, description="largest norm of the gradient")
    warmup_epochs: float = Field(default=1.0, ge=0)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    focal_gamma: float = Field(default=0.0, ge=0, description="focal loss; 0 = cross-entropy")
    class_weights: Literal["none", "balanced"] = Field(default="none", description="balanced: by inverse frequency")
    sampling: Literal["natural", "balanced"] = Field(default="natural", description="balanced: each class as often")
    ema_decay: float | None = Field(default=None, gt=0, lt=1, description="of the averaged weights, which are kept")
    patience: int | None = Field(default=None, ge=1, description="epochs without a better score before the end")
    start_size: int | None = Field(
        default=None, ge=16, description="side in the first epoch; grows to image_size over the first three quarters"
    )
    compile: bool = Field(default=False, description="torch.compile: slower to start, faster after")


class Recipe(_Section):
    """One training run, whole. Unknown keys are refused."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$", description="of the registered model")
    backbone: str = Field(description="a name of timm.list_models()")
    weights: str = Field(
        default="hub",
        description="hub, none (from scratch), a weights file or bundle, az://container/key, or models:/NAME@ALIAS",
    )
    strategy: Literal["full", "probe", "two_phase"] = Field(
        default="full", description="probe: the head alone, on a frozen backbone; two_phase: that, then all of it"
    )
    task: Literal["single", "multi"] = Field(default="single", description="one label an image, or any number")
    views: Literal["one", "dihedral"] = Field(
        default="one",
        description="dihedral: the mean logits of eight flips and quarter turns, at eight times the work",
    )
    preprocessing: Preprocessing = Preprocessing()
    augmentation: Augmentation = Augmentation()
    frozen: Frozen = Frozen()
    optimisation: Optimisation = Optimisation()
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="auto: bf16 where the hardware multiplies it natively"
    )
    seed: int = Field(default=0, ge=0, lt=2**32)
    policy: Policy = Policy()

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        optimisation, augmentation = self.optimisation, self.augmentation
        if self.strategy != "full" and self.weights == "none":
            raise ValueError(f"strategy {self.strategy} needs weights: a backbone of random ones has nothing to say")
        if self.task == "multi" and optimisation.sampling == "balanced":
            raise ValueError("optimisation.sampling balanced needs task single; class_weights balanced takes both")
        if optimisation.start_size and optimisation.start_size > self.preprocessing.image_size:
            raise ValueError("optimisation.start_size must not be above preprocessing.image_size")
        if optimisation.batch_size % optimisation.accumulate:
            raise ValueError("optimisation.batch_size must be a multiple of optimisation.accumulate")
        if (augmentation.mixup or augmentation.cutmix) and optimisation.batch_size % 2:
            raise ValueError("augmentation.mixup and cutmix pair images: a batch must be of even size")
        return self

    @property
    def num_views(self) -> int:
        """Views of an image that go through the network together where it is judged."""
        return 8 if self.views == "dihedral" else 1

    @property
    def digest(self) -> str:
        """What identifies this recipe, whatever the order of its keys in the file."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()[:16]


def _luma(values: tuple[float, float, float]) -> float:
    return sum(weight * value for weight, value in zip(LUMA, values, strict=True))


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
    if first["type"] == "value_error" and not first["loc"]:
        return f"{root}.{first['ctx']['error']}"
    field = ".".join([root, *(str(part) for part in first["loc"])])
    if first["type"] == "extra_forbidden":
        return f"{field} is not a field of the {root}; {_fields_beside(error, first['loc'])}"
    if first["type"] == "missing":
        return f"{field} is missing"
    return f"{field}: {first['msg'][0].lower()}{first['msg'][1:]}, got {first['input']!r}"


def _fields_beside(error: ValidationError, location: tuple[int | str, ...]) -> str:
    model: Any = Recipe
    for part in location[:-1]:
        annotation = model.model_fields[part].annotation
        model = next((one for one in get_args(annotation) if one is not type(None)), annotation)
    return f"its fields are {', '.join(model.model_fields)}"


def with_fields(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """The recipe with other values for fields such as `optimisation.lr`.

    Raises GlintError for a value that is wrong, MisfitError where they do not go together.
    """
    document = recipe.model_dump(mode="json")
    for key, value in values.items():
        _put(document, key, value, key)
    try:
        return Recipe.model_validate(document)
    except ValidationError as error:
        kind = MisfitError if error.errors()[0]["type"] == "value_error" else GlintError
        raise kind(describe(error, "recipe")) from None


def _override(document: dict[str, Any], override: str) -> None:
    key, sign, text = override.partition("=")
    if not sign or not key.strip():
        raise GlintError(f"--set {override!r} must be key=value, for example optimisation.epochs=5")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise GlintError(f"--set {override!r}: {text!r} is not a YAML value") from None
    _put(document, key.strip(), value, f"--set {override!r}")


def _put(document: dict[str, Any], key: str, value: Any, source: str) -> None:
    *parents, leaf = key.split(".")
    section = document
    for parent in parents:
        section = section.setdefault(parent, {})
        if not isinstance(section, dict):
            raise GlintError(f"{source}: recipe.{parent} is not a section")
    section[leaf] = value
