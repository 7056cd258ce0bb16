"""Files that appear whole or not at all: a reader finds one as it was before or as it is then."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Another path to write to; what lies there at the end takes the place of `path`, unless something was raised."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write a text file."""
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")
