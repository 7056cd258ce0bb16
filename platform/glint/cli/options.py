"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="print one JSON object on stdout")]
Model = Annotated[str, typer.Option(help="models:/NAME@ALIAS, models:/NAME/VERSION or a bundle directory")]
Engine = Annotated[
    str,
    typer.Option(
        help="auto, torch, torch-compiled, openvino, openvino-fp32, openvino-bf16 or openvino-int8; "
        "auto: torch on a GPU, else what training found to change next to nothing"
    ),
]
ManifestFile = Annotated[Path, typer.Option(help="made by glint snapshot")]
