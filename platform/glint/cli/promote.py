"""glint promote: makes a version the champion, once it has passed the gate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glint.cli.options import AsJson


def promote(
    name: Annotated[str, typer.Argument(help="of the registered model")],
    version: Annotated[int, typer.Option(min=1, help="to promote")],
    alias: Annotated[str, typer.Option(help="to move")] = "champion",
    manifest: Annotated[
        Path | None, typer.Option(help="what the gate compares version and champion on; the first one needs none")
    ] = None,
    split: Annotated[str, typer.Option(help="of the manifest; training must not have seen it")] = "test",
    margin: Annotated[
        float, typer.Option(min=0, max=1, help="how far the macro-F1 may be below the champion's")
    ] = 0.01,
    class_margin: Annotated[float, typer.Option(min=0, max=1, help="the same for the recall of a class")] = 0.05,
    latency_factor: Annotated[float, typer.Option(min=0, max=1e6, help="of the champion's time for an image")] = 1.5,
    max_latency_ms: Annotated[
        float | None, typer.Option(min=0, max=1e9, help="for an image, whatever the champion takes")
    ] = None,
    approve: Annotated[
        str | None,
        typer.Option(
            metavar="REASON", help="promote even if the gate refuses or is not asked; kept with user and time"
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """Make a version the champion: `models:/NAME@champion` then means that version.

    Where there is a champion, the version has to pass the gate on a manifest first: no worse than the champion beyond
    a margin, overall and for each class, by the whole of the paired 95% interval; scored as training scored it; not
    much slower; and tested on images that training has not seen. Where the gate refuses, the reasons are told a line
    each, nothing changes, and the exit code is 1.

    Examples:

        glint promote boards --version 2 --manifest manifest.parquet

        glint promote boards --version 2 --manifest manifest.parquet --approve "line 4 has a new camera"

        glint promote boards --version 1
    """
    from glint.cli import gating
    from glint.cli.console import emit, progress, stderr
    from glint.cli.starting import start
    from glint.core.errors import GlintError
    from glint.core.gate import Margins
    from glint.settings import Settings
    from glint.wiring import open_registry

    if approve is not None and not approve.strip():
        raise GlintError(f"--approve {approve!r} overrides the gate, so it needs a reason")
    settings, report = Settings(), None
    registry = open_registry(settings)
    if not (manifest or approve):
        gating.check_first(registry, name, str(version), alias)
    if manifest:
        margins = Margins(
            macro_f1=margin, recall=class_margin, latency_factor=latency_factor, max_latency_ms=max_latency_ms
        )
        judge = gating.enter(settings, name, str(version), alias, manifest, split, margins)
        with progress() as told:
            start(settings, told)
            report = judge(told)
    promoted = gating.promote(registry, name, str(version), alias, report, approve)
    emit(promoted, json, *gating.drawn(promoted))
    if promoted.gate == "unchecked":
        stderr.print("nothing was checked: with --manifest FILE the version has to pass the gate first")
        if policy := gating.left_behind(registry, promoted):
            stderr.print(policy)
    if promoted.gate == "refused" and report:
        for finding in report.refused:
            stderr.print(f"glint: refused by {finding.line}")
        raise typer.Exit(1)
