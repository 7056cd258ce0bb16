"""glint export: a model's network in a file for other runtimes."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from glint.cli.options import AsJson, Model


class Format(StrEnum):
    """Of the file."""

    onnx = "onnx"
    openvino = "openvino"
    pt2 = "pt2"


def export(
    model: Model,
    format: Annotated[Format, typer.Option(help="onnx, openvino (an .xml with a .bin), or pt2 (torch.export)")],
    out: Annotated[Path, typer.Option(help="file to write: .onnx, .xml or .pt2")],
    json: AsJson = False,
) -> None:
    """Write a model's network to a file, and check that the file says what the model says.

    It takes uint8 RGB images (N, 3, S, S), resized but not normalised, and gives logits. The classes, the resizing and
    the temperature are in the file too, as JSON under `glint`. Where a logit differs by more than a thousandth of the
    largest one (or of 1), nothing is written and the exit code is 1.

    Examples:

        glint export --model models:/boards@champion --format onnx --out boards.onnx

        glint export --model models:/boards/3 --format openvino --out boards.xml

        glint export --model .glint/runs/NAME/bundle --format pt2 --out boards.pt2
    """
    from glint.cli.console import emit, progress
    from glint.settings import Settings
    from glint.vision.engines.export import Parity
    from glint.vision.engines.export import export as write
    from glint.wiring import open_model

    class Exported(Parity):
        model: str
        format: str
        out: Path | None

    found = open_model(model, Settings())
    with progress() as told:
        told.begin(f"exporting as {format.value}", None, "")
        parity = write(found.bundle, format.value, out.absolute())
        told.end()
    written = out.absolute() if parity.holds else None
    answer = Exported(**parity.model_dump(), model=found.uri, format=format.value, out=written)
    apart = f"logits differ by {parity.max_difference:.3g} at most, {parity.tolerance:.3g} are allowed"
    emit(answer, json, f"{out}: {apart}" if parity.holds else f"{out} is not written: {apart}")
    if not parity.holds:
        raise typer.Exit(1)
