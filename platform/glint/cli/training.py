"""What the verbs that train have in common: a recipe, a manifest and workers become a training run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from glint.core.manifest import Manifest
from glint.core.recipe import read_recipe
from glint.pipelines.access import check_access
from glint.settings import Settings
from glint.wiring import open_images, open_limits, open_registry

if TYPE_CHECKING:
    from glint.pipelines.training_run import TrainingRun


def open_run(
    settings: Settings,
    recipe: Path,
    overrides: Sequence[str],
    manifest: Path,
    workers: str,
    gpu: bool,
    name: str | None = None,
) -> TrainingRun:
    """The run that the options name; raises GlintError for those that are wrong, and for images out of reach.

    What is wrong with files is said before anything is imported that takes seconds.
    """
    images, science, opened = open_images(settings), read_recipe(recipe, tuple(overrides)), Manifest.open(manifest)
    check_access(opened, images)

    from glint.pipelines.fitting import parse_workers
    from glint.pipelines.training_run import TrainingRun

    return TrainingRun(
        recipe=science,
        manifest=opened,
        images=images,
        limits=open_limits(settings),
        registry=open_registry(settings),
        home=settings.home_path,
        name=name,
        workers=parse_workers(workers, gpu),
    )
