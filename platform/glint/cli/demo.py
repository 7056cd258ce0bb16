"""glint demo: the whole flow on generated circuit boards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glint.cli.options import AsJson


def demo(
    folder: Annotated[Path, typer.Option(help="for images, manifest and report")] = Path("glint-demo"),
    images: Annotated[int, typer.Option(min=700, help="boards to generate")] = 3000,
    upload: Annotated[str | None, typer.Option(help="az://CONTAINER/PREFIX to read the images from")] = None,
    seed: Annotated[int, typer.Option(min=0, help="of the boards and of the training")] = 0,
    json: AsJson = False,
) -> None:
    """Generate circuit boards, then snapshot, train, evaluate, promote, batch and serve them.

    Takes a few minutes on two cores and needs neither network nor account. Everything is kept: boards, manifest and
    report in the folder; model, runs and outcomes under GLINT_HOME. Run again, it continues where it stopped.

    Examples:

        glint demo

        glint demo --images 1500 --folder /tmp/boards

        glint emulators run -- glint demo --upload az://demo/boards
    """
    from glint.cli.console import emit, progress
    from glint.cli.demonstration import demonstrate, shown
    from glint.settings import Settings

    with progress() as told:
        result = demonstrate(folder, images, upload, seed, Settings(), told)
    emit(result, json, *shown(result))
