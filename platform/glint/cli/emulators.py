"""glint emulators: Azure Blob Storage and Cosmos DB on this machine, without an account."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from glint.cli.options import AsJson

Port = Annotated[int, typer.Option(min=0, max=65535, help="port of 127.0.0.1; 0 takes any free one")]

app = typer.Typer(help="Azure Blob Storage and Cosmos DB on this machine, without an account.", no_args_is_help=True)


@app.command()
def up(
    blob_port: Port = 10000,
    cosmos_port: Port = 8081,
    data: Annotated[Path | None, typer.Option(help="where blobs are kept; default: under GLINT_HOME")] = None,
    json: AsJson = False,
) -> None:
    """Start the emulators, print the settings that lead to them, and stay until Ctrl-C or SIGTERM.

    The first time, npm installs them under GLINT_HOME. Blobs are kept from one start to the next; what is in
    Cosmos DB is lost.

    Examples:

        glint emulators up

        glint emulators up --blob-port 0 --cosmos-port 0 --data /tmp/blobs

        glint emulators up > emulators.env &
    """
    from glint.cli.console import stderr
    from glint.cli.serve import wait_for_signal

    with _running(blob_port, cosmos_port, data) as settings:
        _print(settings, json)
        stderr.print("the emulators are up; Ctrl-C stops them")
        wait_for_signal()


@app.command()
def run(
    command: Annotated[list[str], typer.Argument(help="and what follows it, after --", show_default=False)],
    data: Annotated[Path | None, typer.Option(help="where blobs are kept; default: under GLINT_HOME")] = None,
) -> None:
    """Start the emulators, run a command with the settings that lead to them, and end with its exit code.

    Examples:

        glint emulators run -- glint demo --upload az://demo/boards

        glint emulators run -- glint doctor
    """
    import os
    import shutil
    import subprocess

    from glint.cli.console import stderr
    from glint.core.errors import GlintError

    if shutil.which(command[0]) is None:
        raise GlintError(f"COMMAND {command[0]!r} is no program here that can be run")
    with _running(0, 0, data) as settings:
        try:
            ended = subprocess.run(command, env={**os.environ, **settings}, check=False)
        except OSError as error:  # what can be run is not always a program
            raise GlintError(f"COMMAND {command[0]!r} cannot be run: {error.strerror}") from None
    stderr.print("the emulators have ended, and with them what was in Cosmos DB; glint emulators up keeps them running")
    by_signal = ended.returncode < 0  # told as a shell tells it
    raise typer.Exit(128 - ended.returncode if by_signal else ended.returncode)


@contextmanager
def _running(blob_port: int, cosmos_port: int, data: Path | None) -> Iterator[dict[str, str]]:
    """The emulators, and the settings that lead to them."""
    from glint.cli.console import progress
    from glint.emulators.fidelity import CosmosProxy
    from glint.emulators.install import install
    from glint.emulators.servers import Azurite, CosmosEmulator, check_port
    from glint.settings import Settings

    home = Settings().home_path / "emulators"
    for name, port in (("--blob-port", blob_port), ("--cosmos-port", cosmos_port)):
        check_port(port, name)
    with ExitStack() as running:
        with progress() as told:
            installed = install(home, told)
            told.begin("starting the emulators", None, "")
            azurite = running.enter_context(Azurite(installed, data or home / "data", blob_port))
            emulator = running.enter_context(CosmosEmulator(installed))
            cosmos = running.enter_context(CosmosProxy(emulator.endpoint, cosmos_port))
        yield {
            "GLINT_BLOB_ACCOUNT": azurite.account,
            "GLINT_BLOB_ENDPOINT": azurite.endpoint,
            "GLINT_BLOB_KEY": azurite.key,
            "GLINT_STORE": "cosmos://localhost/glint",
            "GLINT_COSMOS_ENDPOINT": cosmos.endpoint,
            "GLINT_COSMOS_KEY": cosmos.key,
        }


def _print(settings: dict[str, str], as_json: bool) -> None:
    from json import dumps
    from shlex import quote

    lines = [dumps(settings)] if as_json else [f"export {name}={quote(value)}" for name, value in settings.items()]
    print(*lines, sep="\n", flush=True, file=sys.stdout)
