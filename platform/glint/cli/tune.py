"""glint tune: many values of a recipe's fields tried, the best recipe written out."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from glint.cli.options import AsJson

KEPT = "trials that have ended, and finished epochs of others, are"


def tune(
    recipe: Annotated[Path, typer.Option(help="YAML file with the recipe to vary")],
    manifest: Annotated[Path, typer.Option(help="made by glint snapshot")],
    space: Annotated[Path, typer.Option(help="YAML file: recipe fields, and the values that they may have")],
    trials: Annotated[int, typer.Option(min=1, help="to train")] = 20,
    out: Annotated[Path, typer.Option(help="folder for best.yaml, trials.csv and trials.svg")] = Path("tuned"),
    set: Annotated[list[str] | None, typer.Option(help="key=value for a field of the recipe; may be repeated")] = None,
    concurrent: Annotated[int, typer.Option(min=1, help="trials at a time")] = 1,
    workers: Annotated[str, typer.Option(help="Ray Train workers of a trial")] = "1",
    gpu: Annotated[bool, typer.Option("--gpu", help="a GPU for each worker")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="forget an earlier tuning of the same kind")] = False,
    json: AsJson = False,
) -> None:
    """Find better values for a recipe's fields by Ray Tune, on the validation split.

    Poor trials are stopped early (ASHA). The same command continues an interrupted tuning. A space is a YAML file:

        optimisation.lr: {loguniform: [1.0e-4, 1.0e-2]}

        augmentation.policy: [flip, dihedral]

        augmentation.shift: {uniform: [0, 0.3]}

        frozen.views: {integers: [1, 4]}

    Examples:

        glint tune --recipe recipe.yaml --space configs/spaces/boards.yaml --manifest manifest.parquet --trials 8

        glint train --recipe tuned/best.yaml --manifest manifest.parquet
    """
    from glint.cli.training import open_run
    from glint.core.space import read_space
    from glint.settings import Settings

    settings, varied = Settings(), read_space(space)
    run = open_run(settings, recipe, set or (), manifest, workers, gpu)

    from glint.cli.console import emit, next_step, progress
    from glint.cli.interruption import kept_on_interruption
    from glint.cli.starting import start
    from glint.cli.tables import rows
    from glint.pipelines.trials import write_trials
    from glint.pipelines.tune import Tuning, check_pace, check_tuning, finished, is_begun, run_tuning

    tuning = Tuning(run, varied, trials, concurrent)
    state = tuning.state
    with kept_on_interruption(lambda: KEPT if is_begun(state) else None), progress() as told:
        tuned = None if fresh else finished(tuning, told)
        if tuned is None:
            check_tuning(tuning)
            if not fresh:
                check_pace(tuning)
            start(settings, told)
            tuned = run_tuning(tuning, told, fresh)
    write_trials(out, tuned, varied)
    names = list(tuned.trials[0].values)
    lines = [(t.trial, t.score, t.epochs, *(t.values.get(name) for name in names), t.error) for t in tuned.trials]
    emit(
        tuned,
        json,
        rows(["trial", "best val macro-F1", "epochs", *(name.replace(".", ".\n") for name in names), "error"], lines),
        next_step(f"train --recipe {quote(str(out / 'best.yaml'))} --manifest {quote(str(manifest))}"),
    )
