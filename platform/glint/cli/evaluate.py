"""glint evaluate: a model's scores on a split, as report.json and report.html."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glint.cli.options import AsJson, Engine, ManifestFile, Model


def evaluate(
    model: Model,
    manifest: ManifestFile,
    report: Annotated[Path, typer.Option(help="folder for report.json and report.html")],
    split: Annotated[str, typer.Option(help="train, val or test")] = "test",
    against: Annotated[
        str | None, typer.Option(help="model to compare with, or none; default: the champion of the same name")
    ] = None,
    engine: Engine = "auto",
    json: AsJson = False,
) -> None:
    """Score a model on a split of a manifest and write a report.

    The report tells how far each score may be luck, what the decision policy would let escape, which slices are weak,
    where the model looked when it was wrong, which labels may be wrong, and how the champion does on the same images.

    Examples:

        glint evaluate --model models:/boards@champion --manifest manifest.parquet --report report

        glint evaluate --model models:/boards/3 --against models:/boards/2 --manifest manifest.parquet --report report

        glint evaluate --model .glint/runs/NAME/bundle --manifest manifest.parquet --split val --report val

        glint evaluate --model models:/boards/3 --engine torch --manifest manifest.parquet --report exact
    """
    from glint.core.manifest import Manifest
    from glint.pipelines.access import check_access
    from glint.settings import Settings
    from glint.wiring import open_images, open_model, pinned

    settings = Settings()
    opened, images = Manifest.open(manifest), open_images(settings)
    check_access(opened, images, split)
    found = open_model(model, settings, engine)

    # Only now what takes seconds to import: what is wrong with the files was said without it.
    from glint.cli.console import emit, progress
    from glint.cli.evaluated import shown
    from glint.cli.opponent import find_opponent
    from glint.cli.starting import start
    from glint.pipelines.evaluate import evaluate as run_evaluation

    opponent, reason = find_opponent(found, against, opened.classes, settings)
    with progress() as told:
        start(settings, told)
        evaluation = run_evaluation(
            found.bundle,
            found.ref,
            pinned(found, settings),
            opened,
            split,
            images,
            report,
            told,
            opponent,
            reason,
        )
    emit(evaluation, json, *shown(evaluation), f"report: {report / 'report.html'}")
