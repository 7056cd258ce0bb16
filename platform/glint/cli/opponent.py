"""The model that another is compared with: the one that was named, or the champion of the same name."""

from __future__ import annotations

from glint.core.errors import GlintError
from glint.pipelines.evaluate import Candidate
from glint.settings import Settings
from glint.wiring import Model, open_model, open_registry, pinned

CHAMPION = "champion"
NOTHING = "none"


def find_opponent(
    model: Model, against: str | None, classes: tuple[str, ...], settings: Settings
) -> tuple[Candidate | None, str | None]:
    """The model to compare with, or None and why: `against` names it, is `none`, or None for the champion.

    Raises GlintError for a model that was named and is not there, or is none for the same `classes`.
    """
    if against == NOTHING:
        return None, "--against none"
    if against is not None:
        return _named(model, against, classes, settings), None
    if model.name is None:
        return None, "the model is not in the registry, so it has no champion"
    version = open_registry(settings).alias(model.name, CHAMPION)
    if version is None:
        return None, f"{model.name} has no champion yet"
    if version == model.version:
        return None, "this is the champion"
    champion = open_model(f"models:/{model.name}/{version}", settings)
    if unlike := _unlike(model, champion, classes):
        return None, f"the champion, version {version}, {unlike}"
    return _candidate(champion, settings), None


def _named(model: Model, against: str, classes: tuple[str, ...], settings: Settings) -> Candidate:
    opponent = open_model(against, settings)
    if unlike := _unlike(model, opponent, classes):
        raise GlintError(f"--against {against} {unlike}; name another, or none")
    return _candidate(opponent, settings)


def _unlike(model: Model, other: Model, classes: tuple[str, ...]) -> str | None:
    """Why the two cannot be compared."""
    if other.bundle.info.classes != classes:
        return f"has other classes: {list(other.bundle.info.classes)}"
    tasks = [one.bundle.info.recipe.task for one in (model, other)]
    return None if tasks[0] == tasks[1] else f"is for the task {tasks[1]}, not {tasks[0]}"


def _candidate(model: Model, settings: Settings) -> Candidate:
    opening = pinned(model, settings)
    return Candidate(model.bundle, model.ref, opening)
