"""glint rollback: an alias of a registered model goes back to the version that it meant before."""

from __future__ import annotations

from typing import Annotated

import typer

from glint.cli.options import AsJson


def rollback(
    name: Annotated[str, typer.Argument(help="of the registered model")],
    alias: Annotated[str, typer.Option(help="to move back")] = "champion",
    json: AsJson = False,
) -> None:
    """Undo the last `glint promote`: the alias means the version before again. Each call goes one step further back.

    Examples:

        glint rollback boards
    """
    from datetime import UTC, datetime

    from pydantic import BaseModel

    from glint.cli.console import emit
    from glint.cli.who import user
    from glint.settings import Settings
    from glint.wiring import open_registry

    class RolledBack(BaseModel):
        model: str
        alias: str
        version: str
        before: str

    record = {"by": user(), "at": datetime.now(UTC).isoformat()}
    version, before = open_registry(Settings()).rollback(name, alias, record)
    moved = RolledBack(model=name, alias=alias, version=version, before=before)
    emit(moved, json, f"models:/{name}@{alias} is version {version} again, was {before}")
