"""Recipes are read whole or refused with the field that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from glint.core.errors import GlintError
from glint.core.recipe import Recipe, read_recipe

TEXT = """
name: boards
backbone: resnet10t
weights: none
preprocessing: {image_size: 128}
optimisation: {epochs: 20, lr: 1e-3}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "boards.yaml"
    path.write_text(TEXT, encoding="utf-8")
    return path


def complaint(path: Path, *overrides: str) -> str:
    with pytest.raises(GlintError) as raised:
        read_recipe(path, overrides)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_recipe_says_what_it_says_and_has_defaults_for_the_rest(path: Path) -> None:
    recipe = read_recipe(path)
    assert (recipe.name, recipe.preprocessing.image_size, recipe.optimisation.lr) == ("boards", 128, 0.001)
    assert (recipe.precision, recipe.optimisation.batch_size) == ("auto", 64)


def test_overrides_change_single_fields_and_keep_their_neighbours(path: Path) -> None:
    overrides = ("optimisation.epochs=2", " seed = 7", "augmentation.policy=none", "policy.accept_classes=[good]")
    recipe = read_recipe(path, overrides)
    assert (recipe.optimisation.epochs, recipe.optimisation.lr, recipe.seed) == (2, 0.001, 7)
    assert (recipe.augmentation.policy, recipe.policy.accept_classes) == ("none", ("good",))


def test_the_last_override_of_a_field_holds(path: Path) -> None:
    assert read_recipe(path, ("seed=1", "seed=2")).seed == 2


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optimisation.epochs=0", "recipe.optimisation.epochs: input should be greater than or equal to 1, got 0"),
        ("optimisation.epoch=2", "recipe.optimisation.epoch is not a field of the recipe; its fields are epochs,"),
        ("optimization.epochs=2", "recipe.optimization is not a field of the recipe; its fields are name, backbone,"),
        ("augmentation.policy=spin", "recipe.augmentation.policy: input should be 'none', 'flip' or 'dihedral'"),
        ("name=My Boards", "recipe.name: string should match pattern"),
        ("preprocessing.std=[0.2,0,0.2]", "recipe.preprocessing.std.1: input should be greater than 0, got 0"),
        ("optimisation.lr=.inf", "recipe.optimisation.lr: input should be a finite number, got inf"),
        ("preprocessing.mean=[.nan,0,0]", "recipe.preprocessing.mean.0: input should be a finite number, got nan"),
        ("seed=4294967296", "recipe.seed: input should be less than 4294967296, got 4294967296"),
        ("seed=-1", "recipe.seed: input should be greater than or equal to 0, got -1"),
        ("seed", "--set 'seed' must be key=value"),
        ("=1", "--set '=1' must be key=value"),
        ("name.first=x", "--set 'name.first=x': recipe.name is not a section"),
        ("policy.accept_classes=[good", "--set 'policy.accept_classes=[good': '[good' is not a YAML value"),
    ],
)
def test_a_wrong_override_is_named(path: Path, override: str, said: str) -> None:
    assert complaint(path, override).startswith(said)


def test_a_missing_field_is_named(path: Path) -> None:
    path.write_text("name: boards\n", encoding="utf-8")
    assert complaint(path) == "recipe.backbone is missing"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "must be a mapping of fields, got NoneType"),
        (b"- name", "must be a mapping of fields, got list"),
        (b"name: [", "is not YAML"),
        (b"name: \xff\xfe", "is not YAML"),
        (b"name: !!python/object/apply:os.getcwd []", "is not YAML"),
    ],
)
def test_a_file_that_is_no_recipe_is_named(path: Path, content: bytes, said: str) -> None:
    path.write_bytes(content)
    assert complaint(path).startswith(f"--recipe {path} {said}")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing.yaml"
    assert complaint(missing) == f"--recipe {missing} cannot be read: No such file or directory"


def test_digest_does_not_depend_on_the_order_of_the_keys_nor_on_defaults_spelt_out(path: Path) -> None:
    digest = read_recipe(path).digest
    path.write_text("\n".join(reversed(TEXT.split("\n"))) + "\nprecision: auto\n", encoding="utf-8")
    assert read_recipe(path).digest == digest


def test_digest_changes_with_any_field(path: Path) -> None:
    overrides = ["seed=1", "optimisation.lr=2e-3", "augmentation.shift=0.1", "backbone=resnet18", "precision=fp32"]
    digests = {read_recipe(path, (override,)).digest for override in overrides}
    assert len(digests | {read_recipe(path).digest}) == len(overrides) + 1


def test_a_recipe_saved_with_its_model_reads_back_the_same(path: Path) -> None:
    recipe = read_recipe(path)
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
