"""glint evaluate: a model's scores on a split, as report.json and report.html."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glint.cli.options import AsJson, ManifestFile, Model


def evaluate(
    model: Model,
    manifest: ManifestFile,
    report: Annotated[Path, typer.Option(help="folder for report.json and report.html")],
    split: Annotated[str, typer.Option(help="train, val or test")] = "test",
    json: AsJson = False,
) -> None:
    """Score a model on a split of a manifest and write a report.

    Examples:

        glint evaluate --model models:/boards@champion --manifest manifest.parquet --report report

        glint evaluate --model .glint/runs/NAME/bundle --manifest manifest.parquet --split val --report val
    """
    from functools import partial

    from glint.cli.console import emit, progress
    from glint.cli.starting import start
    from glint.cli.tables import rows
    from glint.core.manifest import Manifest
    from glint.pipelines.evaluate import evaluate as run_evaluation
    from glint.settings import Settings
    from glint.wiring import open_images, open_model, open_predictor

    settings = Settings()
    opened = Manifest.open(manifest)
    found = open_model(model, settings)
    with progress() as told:
        start(settings, told)
        scores = run_evaluation(
            found.bundle,
            found.ref,
            partial(open_predictor, found.uri, settings),
            opened,
            split,
            open_images(settings),
            report,
            told,
        )
    classes = [(name, s.precision, s.recall, s.f1, s.support) for name, s in scores.per_class.items()]
    totals = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in scores.summary().items())
    left_out = f"{sum(scores.left_out.values())} images left out: {scores.left_out}" if scores.left_out else ""
    emit(
        scores,
        json,
        rows(["class", "precision", "recall", "F1", "images"], classes),
        f"{totals}, {scores.num_images:,} images {left_out}",
        f"report: {report / 'report.html'}",
    )
