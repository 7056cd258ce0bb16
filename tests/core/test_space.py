from pathlib import Path

import pytest

from glint.core.errors import GlintError
from glint.core.recipe import Recipe, with_fields
from glint.core.space import Space, read_space

RECIPE = Recipe(name="boards", backbone="resnet10t", weights="none")
TEXT = """
optimisation.lr: {loguniform: [1.0e-4, 1.0e-2]}
augmentation.policy: [flip, dihedral]
augmentation.shift: {uniform: [0, 0.3]}
optimisation.epochs: {integers: [2, 5]}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "space.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_space_says_what_fields_may_be(tmp_path: Path) -> None:
    space = read_space(written(tmp_path, TEXT))
    space.check(RECIPE)
    assert {key: values.ends for key, values in space.fields.items()} == {
        "optimisation.lr": (1e-4, 1e-2),
        "augmentation.policy": ("flip", "dihedral"),
        "augmentation.shift": (0, 0.3),
        "optimisation.epochs": (2, 5),
    }
    assert space.digest == Space.model_validate(space.model_dump()).digest


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[1, 2]", "must be a mapping of recipe fields to values"),
        ("", "must be a mapping of recipe fields to values"),
        ("a: [", "is not YAML"),
        ("optimisation.lr: {uniform: [2, 1]}", "space.optimisation.lr: the first of uniform must be below the second"),
        ("optimisation.lr: {uniform: [0.1, .inf]}", "space.optimisation.lr: .*finite"),
        ("optimisation.lr: {loguniform: [0, 1]}", "loguniform must be above 0"),
        (
            "optimisation.lr: {normal: [0, 1]}",
            "space.optimisation.lr: must be a list of values, or one of choice, uniform",
        ),
        ("optimisation.lr: {}", "name one of choice, uniform, loguniform, integers"),
        ("optimisation.lr: []", "space.optimisation.lr"),
        ("optimisation.lr: 3", "space.optimisation.lr"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(GlintError, match=reason):
        read_space(written(tmp_path, text))


def test_a_space_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(GlintError, match=r"--space .*absent\.yaml cannot be read"):
        read_space(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("optimisation.rate: [1, 2]", "recipe.optimisation.rate is not a field of the recipe"),
        ("augmentation.policy: [flip, spin]", "recipe.augmentation.policy: input should be .*got 'spin'"),
        ("optimisation.epochs: {uniform: [2, 9]}", "recipe.optimisation.epochs: .*got 6.9"),
        ("augmentation.shift: {uniform: [0, 0.9]}", "recipe.augmentation.shift: .*got 0.9"),
        ("name.first: [a]", "recipe.name is not a section"),
    ],
)
def test_fields_and_values_that_the_recipe_refuses_are_named(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(GlintError, match=reason):
        read_space(written(tmp_path, text)).check(RECIPE)


def test_other_values_make_another_recipe() -> None:
    changed = with_fields(RECIPE, {"optimisation.lr": 0.5, "seed": 3})
    assert (changed.optimisation.lr, changed.seed, changed.name) == (0.5, 3, "boards")
    assert RECIPE.seed == 0


def test_values_that_fit_only_with_other_values_of_the_space_are_no_mistake(tmp_path: Path) -> None:
    probing = "strategy: [probe]\noptimisation.lr: [0.1, 0.2]\nweights: [hub]"
    read_space(written(tmp_path, probing)).check(RECIPE)
    read_space(written(tmp_path, "strategy: [full, probe]\nweights: [none, hub]")).check(RECIPE)
    with pytest.raises(GlintError, match=r"recipe\.strategy probe needs weights"):
        read_space(written(tmp_path, "strategy: [full, probe]\nweights: [none]")).check(RECIPE)
    with pytest.raises(GlintError, match=r"recipe\.seed: "):
        read_space(written(tmp_path, "strategy: [probe]\nseed: [-1]")).check(RECIPE)
