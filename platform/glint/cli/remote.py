"""The server that a command asks, and what is told of one that does not answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from glint.client import Client

Url = Annotated[str, typer.Option(envvar="GLINT_URL", help="of a running glint serve")]
DEFAULT_URL = "http://127.0.0.1:8000"


@contextmanager
def connect(url: str) -> Iterator[Client]:
    """The client of the server at --url; raises GlintError where no answer comes of it."""
    from glint.client import Client, UnavailableError
    from glint.core.errors import GlintError

    try:
        with Client(url) as client:
            yield client
    except UnavailableError as error:
        hint = "" if error.status else "; is `glint serve` running there?"
        raise GlintError(f"--url {url}: {error}{hint}") from None
