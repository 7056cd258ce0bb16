"""glint train: a recipe and a manifest in, a registered model out."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from glint.cli.options import AsJson


def train(
    recipe: Annotated[Path, typer.Option(help="YAML file with the science of the run")],
    manifest: Annotated[Path, typer.Option(help="made by glint snapshot")],
    set: Annotated[list[str] | None, typer.Option(help="key=value for a field of the recipe; may be repeated")] = None,
    name: Annotated[str | None, typer.Option(help="of the run; default: from recipe and manifest")] = None,
    workers: Annotated[
        str, typer.Option(help="Ray Train workers: N, or MIN:MAX for as many as there is room for")
    ] = "1",
    gpu: Annotated[bool, typer.Option("--gpu", help="a GPU for each worker")] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="forget an earlier run of the same recipe and manifest")
    ] = False,
    json: AsJson = False,
) -> None:
    """Train a model and register it.

    The same command continues an interrupted run from its last epoch, and says so when the run is finished.

    Examples:

        glint train --recipe configs/recipes/boards.yaml --manifest manifest.parquet

        glint train --recipe configs/recipes/boards.yaml --manifest manifest.parquet --set optimisation.epochs=3 --fresh

        glint train --recipe recipe.yaml --manifest manifest.parquet --set weights=models:/boards@champion

        glint train --recipe recipe.yaml --manifest manifest.parquet --workers 4 --gpu
    """
    from glint.cli.training import open_run
    from glint.settings import Settings

    settings = Settings()
    run = open_run(settings, recipe, set or (), manifest, workers, gpu, name)

    from glint.cli.console import emit, next_step, progress
    from glint.cli.interruption import kept_on_interruption
    from glint.cli.starting import start
    from glint.cli.tables import fields
    from glint.pipelines.run_checks import check_run
    from glint.pipelines.run_state import last_epoch
    from glint.pipelines.train import finished
    from glint.pipelines.train import train as run_training

    directory, epochs = run.directory, run.recipe.optimisation.epochs
    with kept_on_interruption(lambda: _kept(last_epoch(directory), epochs)), progress() as told:
        trained = None if fresh else finished(run, told)
        if trained is None:
            check_run(run)
            run.registry.check_answers()
            start(settings, told)
            trained = run_training(run, told, fresh)
    emit(
        trained,
        json,
        fields(trained),
        next_step(f"evaluate --model {trained.model_uri} --manifest {quote(str(manifest))} --report report"),
    )


def _kept(last_epoch: int | None, epochs: int) -> str | None:
    if last_epoch == 0:
        return "the head on frozen features is"
    return f"epoch {last_epoch} of {epochs} is" if last_epoch else None
