"""glint store: make the result store, and give it what it once refused."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glint.cli.options import AsJson

app = typer.Typer(
    help="Make the result store in Azure Cosmos DB, and give it what it once refused.", no_args_is_help=True
)


@app.command()
def init(
    max_ru: Annotated[
        int, typer.Option(help="RU/s of a new database, shared by its containers; autoscale has steps of 1000")
    ] = 4000,
    autoscale: Annotated[bool, typer.Option(help="between a tenth of --max-ru and all of it, as needed")] = True,
    serverless: Annotated[bool, typer.Option("--serverless", help="the account has no throughput of its own")] = False,
    json: AsJson = False,
) -> None:
    """Make the database of GLINT_STORE and its containers, where they are missing.

    No other command needs the right to do so. It takes the account's key: identities of Entra ID may not make
    databases through the data plane, whatever their role, and docs/store.md says how else they are made.

    Examples:

        GLINT_STORE=cosmos://my-account/glint glint store init

        glint store init --max-ru 20000

        glint store init --serverless
    """
    import asyncio

    from pydantic import BaseModel

    from glint.adapters.cosmos_setup import create_schema
    from glint.cli.console import emit, progress
    from glint.cli.tables import fields
    from glint.settings import Settings
    from glint.wiring import cosmos_address

    class Made(BaseModel):
        store: str
        containers: list[str]

    address = cosmos_address(Settings())
    with progress() as told:
        told.begin("making the database", None, "")
        containers = asyncio.run(create_schema(address, None if serverless else max_ru, autoscale))
        told.end()
    result = Made(store=address.uri, containers=containers)
    emit(result, json, fields(result))


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="a file below dead-letters in GLINT_HOME")],
    json: AsJson = False,
) -> None:
    """Write the chunks that the store once refused; writing one again changes nothing.

    Examples:

        glint store replay .glint/dead-letters/3fa4bc0d1e2f5a6b-4711.jsonl
    """
    from pydantic import BaseModel

    from glint.adapters.dead_letters import read_kept
    from glint.cli.console import emit, progress
    from glint.cli.tables import fields
    from glint.core.stores import Bridge
    from glint.settings import Settings
    from glint.wiring import open_store

    class Replayed(BaseModel):
        file: str
        chunks: int
        images: int

    store, bridge = open_store(Settings()), Bridge()
    chunks = images = 0
    try:
        with progress() as told:
            told.begin("replaying", None, "images")
            for chunk, outcomes in read_kept(file):
                bridge.run(store.put_chunk(chunk, outcomes))
                chunks, images = chunks + 1, images + len(outcomes)
                told.update(images)
            told.end()
    finally:
        bridge.run(store.close())
        bridge.close()
    result = Replayed(file=str(file), chunks=chunks, images=images)
    emit(result, json, fields(result))
