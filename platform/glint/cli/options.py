"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="print one JSON object on stdout")]
Model = Annotated[str, typer.Option(help="models:/NAME@ALIAS, models:/NAME/VERSION or a bundle directory")]
ManifestFile = Annotated[Path, typer.Option(help="made by glint snapshot")]
