"""glint upload: a folder in, blobs of a container out."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from glint.cli.options import AsJson


def upload(
    dir: Annotated[Path, typer.Argument(help="a folder; what lies below it is uploaded too", show_default=False)],
    target: Annotated[str, typer.Argument(help="az://CONTAINER/PREFIX; the container is made where there is none")],
    json: AsJson = False,
) -> None:
    """Upload a folder to Azure Blob Storage, except what is there with the same content.

    After an interruption the same command goes on. Hidden files are left out; label files are uploaded like images.
    GLINT_BLOB_ACCOUNT names the account; GLINT_BLOB_KEY or GLINT_BLOB_SAS opens it, and without them an Azure
    identity (workload identity, managed identity, az login).

    Examples:

        glint upload boards az://images/line-4

        glint upload boards az://images/line-4 --json
    """
    from glint.adapters.blob_upload import upload as run_upload
    from glint.cli.console import emit, next_step, progress
    from glint.core.outcome import counted
    from glint.settings import Settings
    from glint.wiring import open_blob_account

    with progress() as told:
        done = run_upload(open_blob_account(Settings()), str(dir), target, told)
    emit(
        done,
        json,
        f"{done.uploaded:,} files uploaded ({done.bytes / 1e6:,.1f} MB in {done.seconds:.1f} s), "
        f"{done.skipped:,} were there already",
        *([f"left out: {counted(done.ignored)}"] if done.ignored else []),
        next_step(f"snapshot {quote(target)}{_labels(dir)} --out manifest.parquet"),
    )


def _labels(folder: Path) -> str:
    """How a snapshot of what was uploaded is to find its labels: in a CSV file, by folders, or nowhere."""
    table = next(iter(sorted(folder.glob("*.csv"))), None)
    if table:
        return f" --labels {quote(str(table))}"
    return "" if any(below.is_dir() for below in folder.iterdir()) else " --labels none"
