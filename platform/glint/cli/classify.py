"""glint classify: asks a served glint about images."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import BaseModel

from glint.cli.options import AsJson
from glint.cli.remote import DEFAULT_URL, Url, connect

if TYPE_CHECKING:
    from rich.table import Table

    from glint.serving.answers import Classification

THREADS = 8
SOME_REFUSED = 1


class Classified(BaseModel):
    """What the server said of one image: an answer, or an error."""

    file: str
    label: str | None = None
    confidence: float | None = None
    decision: str | None = None
    model_version: str | None = None
    error: str | None = None


class Answers(BaseModel):
    """Of all images, in their order."""

    results: tuple[Classified, ...]


def classify(
    files: Annotated[list[str], typer.Argument(metavar="FILE…", help="images, or az:// addresses")],
    url: Url = DEFAULT_URL,
    model: Annotated[str | None, typer.Option(help="a served name; default: the server's first")] = None,
    json: AsJson = False,
) -> None:
    """Ask a running `glint serve` what images show. A key is taken from GLINT_API_KEY.

    Exits with 1 when some image has no answer; the others' are shown.

    Examples:

        glint classify board.jpg

        glint classify boards/*.jpg --url https://glint.example.com --model boards --json
    """
    from glint.cli.console import emit, progress

    with connect(url) as client, progress() as told:
        told.begin("classifying", len(files), "images")
        results: list[Classified] = []
        for result in _ask(lambda file: client.classify(file, model=model), files):
            results.append(result)
            told.update(len(results))
        told.end()
    emit(Answers(results=tuple(results)), json, _table(results))
    if any(result.error for result in results):
        raise typer.Exit(SOME_REFUSED)


def _ask(ask: Callable[[str], Classification], files: Sequence[str]) -> Iterator[Classified]:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(THREADS, "classify") as threads:
        yield from threads.map(lambda file: _one(ask, file), files)


def _one(ask: Callable[[str], Classification], file: str) -> Classified:
    """A bad image is that image's result; a wrong key, address or model is everybody's and raised."""
    from glint.client import RefusedError, UnavailableError

    if not file.startswith("az://"):
        if not os.access(file, os.F_OK):
            return Classified(file=file, error="there is no such file")
        if not (os.access(file, os.R_OK) and Path(file).is_file()):
            return Classified(file=file, error="it is no file that may be read")
    try:
        answer = ask(file)
    except RefusedError as error:
        if error.reason in ("unauthorised", "wrong_scope", "unknown_model"):
            raise
        return Classified(file=file, error=str(error))
    except UnavailableError as error:
        if error.status is None:
            raise
        return Classified(file=file, error=str(error))
    return Classified(
        file=file,
        label=answer.label,
        confidence=answer.confidence,
        decision=answer.decision,
        model_version=answer.model.version,
    )


def _table(results: Sequence[Classified]) -> Table:
    from glint.cli.tables import rows

    lines = [(one.file, one.error or one.label, one.confidence, one.decision) for one in results]
    return rows(("file", "label", "confidence", "decision"), lines)
