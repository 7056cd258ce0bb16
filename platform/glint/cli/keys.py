"""glint keys: who may ask a served glint, and for what."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer
from pydantic import BaseModel

from glint.cli.options import AsJson

app = typer.Typer(help="API keys of a served glint. A running server heeds a change at once.", no_args_is_help=True)


class Shown(BaseModel):
    """A key without what would open anything."""

    name: str
    scopes: tuple[str, ...]
    requests_per_s: float | None
    created_at: datetime


class Listing(BaseModel):
    """The keys that there are."""

    keys: tuple[Shown, ...]


class Made(BaseModel):
    """A new key, shown this once."""

    name: str
    key: str


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="of who will use it, such as line-4")],
    scope: Annotated[
        list[str] | None, typer.Option(help="classify, batch or metrics; may be repeated; default: classify")
    ] = None,
    rate: Annotated[float | None, typer.Option(min=0.001, help="requests a second that it may send")] = None,
    json: AsJson = False,
) -> None:
    """Make a key and print it, once: only its hash is kept.

    Examples:

        glint keys add line-4

        glint keys add line-4-next --scope classify --scope batch --rate 50
    """
    from glint.cli.console import emit, stderr
    from glint.serving.keys import add_key
    from glint.settings import Settings
    from glint.wiring import keys_path

    made = Made(name=name, key=add_key(keys_path(Settings()), name, tuple(scope or ["classify"]), rate))
    emit(made, json, made.key)
    stderr.print("keep it now, it is not shown again; clients take it from GLINT_API_KEY")


@app.command("list")
def list_keys(json: AsJson = False) -> None:
    """Show who has a key.

    Examples:

        glint keys list
    """
    from glint.cli.console import emit
    from glint.cli.tables import rows
    from glint.serving.keys import read_keys
    from glint.settings import Settings
    from glint.wiring import keys_path

    keys = read_keys(keys_path(Settings()))
    lines = [(key.name, ", ".join(key.scopes), key.requests_per_s or "any", f"{key.created_at:%F}") for key in keys]
    table = rows(("name", "scopes", "requests/s", "made"), lines)
    emit(Listing(keys=tuple(Shown(**key.model_dump(exclude={"sha256"})) for key in keys)), json, table)


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="that the key was made with")],
    json: AsJson = False,
) -> None:
    """Take a key away: from the next request on it opens nothing.

    Examples:

        glint keys remove line-4
    """
    from glint.cli.console import emit
    from glint.serving.keys import remove_key
    from glint.settings import Settings
    from glint.wiring import keys_path

    class Removed(BaseModel):
        removed: str

    remove_key(keys_path(Settings()), name)
    emit(Removed(removed=name), json, f"{name} opens nothing any more")
