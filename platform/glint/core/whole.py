"""Files that appear whole or not at all: a reader finds one as it was before or as it is then."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from glint.core.errors import GlintError


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Another path to write to; what lies there at the end takes the place of `path`, unless something was raised."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def check_writable(folder: Path, named: str) -> None:
    """Raise GlintError, which begins with `named`, unless a file can be made in `folder`.

    By making one: what permissions say is not so for root, nor on every file system.
    """
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = f"the folder {folder} cannot be written to ({error.strerror}); name one of your own"
        raise GlintError(f"{named}: {reason}") from None


def write_whole(path: Path, text: str) -> None:
    """Write a text file."""
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")
