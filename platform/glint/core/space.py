"""The space that `glint tune` searches: for fields of a recipe, the values that they may have."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from itertools import islice, product
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from glint.core.errors import GlintError
from glint.core.recipe import MisfitError, Recipe, with_fields

KINDS = ("choice", "uniform", "loguniform", "integers")
MESSAGES = {
    "extra_forbidden": f"must be a list of values, or one of {', '.join(KINDS)}",
    "too_short": "must have at least one value",
    "model_type": f"must be a list of values, or one of {', '.join(KINDS)}",
}
"""In place of pydantic's."""
MOST_COMBINATIONS = 10_000
"""Looked at, at most, for one that makes a value fit; half a second."""


class Values(BaseModel):
    """What one field may be: one of `choice`, or a number from the first to the second of a pair."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    choice: tuple[Any, ...] | None = Field(default=None, min_length=1)
    uniform: tuple[float, float] | None = None
    loguniform: tuple[float, float] | None = Field(default=None, description="both above 0; even on a log scale")
    integers: tuple[int, int] | None = Field(default=None, description="both included")

    @model_validator(mode="after")
    def _is_one_kind(self) -> Self:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"name one of {', '.join(KINDS)}")
        bounds = self.uniform or self.loguniform or self.integers
        if bounds and bounds[0] >= bounds[1]:
            raise ValueError(f"the first of {given[0]} must be below the second")
        if self.loguniform and self.loguniform[0] <= 0:
            raise ValueError("loguniform must be above 0")
        return self

    @property
    def ends(self) -> tuple[Any, ...]:
        """All values of a choice; the first and last of a range."""
        return self.choice or self.uniform or self.loguniform or self.integers or ()

    @property
    def tried(self) -> tuple[Any, ...]:
        """What a recipe must take: the ends, and of a range with fractions one of these."""
        fractions = self.uniform or self.loguniform
        return (*self.ends, fractions[0] + (fractions[1] - fractions[0]) / 2**0.5) if fractions else self.ends


class Space(BaseModel):
    """Values by the field that may have them."""

    model_config = ConfigDict(frozen=True)

    fields: dict[str, Values] = Field(min_length=1)

    @property
    def digest(self) -> str:
        """What identifies this space."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()[:16]

    def choices(self, key: str) -> tuple[Any, ...]:
        """The values of a field that is one of several; none where it is a number, or stays as it is."""
        return (self.fields[key].choice or ()) if key in self.fields else ()

    def check(self, recipe: Recipe) -> None:
        """Raise GlintError for a field that the recipe lacks, or a value that it refuses whatever the others are.

        A value that fits with some values of the other fields alone stays: a trial of it with others fails by itself.
        """
        for key, values in self.fields.items():
            for value in values.tried:
                try:
                    with_fields(recipe, {key: value})
                except MisfitError:
                    if not self._fits(recipe, key, value):
                        raise

    def _fits(self, recipe: Recipe, key: str, value: Any) -> bool:
        """Whether the recipe takes a value with some combination of the ends of the other fields."""
        others = {other: values.ends for other, values in self.fields.items() if other != key}
        for combination in islice(product(*others.values()), MOST_COMBINATIONS):
            with suppress(MisfitError):
                with_fields(recipe, {key: value, **dict(zip(others, combination, strict=True))})
                return True
        return False


def read_space(path: Path) -> Space:
    """Read a YAML file such as `optimisation.lr: {loguniform: [1e-4, 1e-2]}`; a plain list is a choice.

    Raises GlintError that names the field which is wrong.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise GlintError(f"--space {path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise GlintError(f"--space {path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict) or not document:
        raise GlintError(f"--space {path} must be a mapping of recipe fields to values")
    return Space(fields={str(key): _values(str(key), value) for key, value in document.items()})


def _values(key: str, value: Any) -> Values:
    try:
        return Values.model_validate({"choice": value} if isinstance(value, list) else value)
    except ValidationError as error:
        first = error.errors()[0]
        reason = str(first.get("ctx", {}).get("error") or MESSAGES.get(first["type"]) or first["msg"])
        raise GlintError(f"space.{key}: {reason}, got {value!r}") from None
