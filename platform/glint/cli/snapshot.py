"""glint snapshot: a folder or prefix of images in, a manifest out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glint.cli.options import AsJson


def snapshot(
    source: Annotated[str, typer.Argument(help="a folder or az://CONTAINER/PREFIX; what lies below it is listed too")],
    out: Annotated[Path, typer.Option(help="the manifest to write, a Parquet file")],
    labels: Annotated[
        str,
        typer.Option(help="folders: an image's label is its folder in SOURCE; FILE.csv with columns path, label; none"),
    ] = "folders",
    group: Annotated[
        str | None,
        typer.Option(help="column of the label file (folder, with --labels folders) that keeps images in one split"),
    ] = None,
    separator: Annotated[
        str | None,
        typer.Option(
            help="what parts the labels of an image that may have several, such as ';'; "
            "by itself it says that an image has none, an empty label that nobody knows"
        ),
    ] = None,
    val_groups: Annotated[str, typer.Option(help="groups for validation, separated by commas")] = "",
    test_groups: Annotated[str, typer.Option(help="groups for the test, separated by commas")] = "",
    json: AsJson = False,
) -> None:
    """List images once, join their labels, split them by group and freeze the list into a manifest.

    Groups are dealt 80/10/10 by their hash; with --val-groups and --test-groups, all others are for training; with
    one of the two, the others are dealt by hash. Images without a label are kept, in no split.

    The same command goes on with a listing of az:// that was interrupted within the last day: what there is of it lies
    in .NAME.listing beside the manifest until that is written.

    Examples:

        glint snapshot boards --labels boards/labels.csv --group lot --out manifest.parquet

        glint snapshot boards --labels boards/labels.csv --group lot --val-groups L07 --test-groups L08 --out m.parquet

        glint snapshot az://images/line-4 --labels folders --out manifest.parquet

        glint snapshot scans --labels scans.csv --separator ";" --out manifest.parquet

        glint snapshot photos --labels none --out photos.parquet
    """
    from glint.cli.console import emit, progress
    from glint.cli.tables import rows
    from glint.pipelines.snapshot import snapshot as run_snapshot
    from glint.settings import Settings
    from glint.wiring import open_images

    with progress() as told:
        summary = run_snapshot(
            open_images(Settings()),
            source,
            out,
            labels,
            group,
            _names(val_groups),
            _names(test_groups),
            told,
            separator or None,
        )
    counts = [(name, *(count[name] for count in summary.counts.values())) for name in summary.classes]
    totals = ("all images", *summary.labelled.values())
    emit(
        summary,
        json,
        rows(["class", *summary.counts], [*counts, totals]),
        f"{summary.num_images:,} images, {summary.unlabelled:,} of them without a label",
        f"manifest: {summary.manifest}, digest {summary.digest[:16]}",
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
