"""glint promote: moves an alias of a registered model to another version."""

from __future__ import annotations

from typing import Annotated

import typer

from glint.cli.options import AsJson


def promote(
    name: Annotated[str, typer.Argument(help="of the registered model")],
    version: Annotated[int, typer.Option(min=1, help="to promote")],
    alias: Annotated[str, typer.Option(help="to move")] = "champion",
    json: AsJson = False,
) -> None:
    """Make a version the champion: `models:/NAME@champion` then means that version.

    Examples:

        glint promote boards --version 2
    """
    from pydantic import BaseModel

    from glint.cli.console import emit
    from glint.settings import Settings
    from glint.wiring import open_registry

    class Promoted(BaseModel):
        model: str
        alias: str
        version: str
        before: str | None

    before = open_registry(Settings()).promote(name, str(version), alias)
    moved = Promoted(model=name, alias=alias, version=str(version), before=before)
    emit(moved, json, f"models:/{name}@{alias} is version {version}" + (f", was {before}" if before else ""))
