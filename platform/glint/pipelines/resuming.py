"""A listing that is interrupted goes on: what it found is kept beside the manifest until that is written."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
from pydantic import BaseModel, Field, ValidationError

from glint.adapters.blob_listing import InterruptedListingError
from glint.adapters.files import Listed
from glint.core.errors import GlintError
from glint.pipelines.joining import SETTINGS, Join, open_join
from glint.pipelines.labels import EXAMPLES

MAX_AGE = timedelta(days=1)
"""An older listing is begun anew: what came meanwhile to places that it has passed would be missing."""


class Position(BaseModel):
    """How far a listing has come: its first and last address, and what it has met."""

    asked: str = Field(description="the arguments on which it depends")
    began_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    noted_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    first: str | None = None
    last: str | None = None
    num_images: int = 0
    ignored: Counter[str] = Field(default_factory=Counter, description="entries that are no images, by reason")
    ignored_examples: list[str] = []

    def after(self, entries: Sequence[Listed]) -> Position:
        """The position behind these further entries, of which there is one at least."""
        ignored = [entry for entry in entries if entry.ignored]
        return Position(
            asked=self.asked,
            began_at=self.began_at,
            first=self.first or entries[0].uri,
            last=entries[-1].uri,
            num_images=self.num_images + len(entries) - len(ignored),
            ignored=self.ignored + Counter(entry.ignored or "" for entry in ignored),
            ignored_examples=[*self.ignored_examples, *(entry.path for entry in ignored)][:EXAMPLES],
        )

    @property
    def span(self) -> tuple[str, str] | None:
        """The first and last address; None before there is one."""
        return (self.first, self.last) if self.first and self.last else None


@contextmanager
def open_resumable(
    out: Path, asked: str, further: Sequence[str], separator: str | None
) -> Iterator[tuple[Join, Position]]:
    """A join with what an interrupted listing of the same arguments has put into it, and where that came to.

    It lies in a folder beside `out`, which stays when the process is ended, or the account fails, while images are
    listed; after any other end it is gone. Where another process is at work in it, this one begins by itself.
    """
    folder = out.with_name(f".{out.name}.listing")
    folder.mkdir(exist_ok=True)
    held = os.open(folder, os.O_RDONLY)
    try:
        if _locked(held, folder):
            with _kept(folder, asked, further, separator) as opened:
                yield opened
        else:
            with open_join(further, separator) as join:
                yield join, Position(asked=asked)
    finally:
        os.close(held)


def _locked(held: int, folder: Path) -> bool:
    """Whether the open folder is ours now, and is still the one that lies there."""
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(held), folder.stat())
    except OSError:  # held by another process, gone, or on a file system without such locks
        return False


@contextmanager
def _kept(folder: Path, asked: str, further: Sequence[str], separator: str | None) -> Iterator[tuple[Join, Position]]:
    file = folder / "join.duckdb"
    position = _noted(file, asked)
    if position is None:
        for name in (file.name, f"{file.name}.wal"):  # not the folder, which is locked
            (folder / name).unlink(missing_ok=True)
    keep = True
    try:
        with duckdb.connect(file, config=SETTINGS | {"temp_directory": str(folder / "spilled")}) as connection:
            join = Join(connection, further, separator)
            try:
                yield join, position or Position(asked=asked)
                keep = False
            except InterruptedListingError:
                raise
            except GlintError:
                keep = False
                raise
            finally:
                keep = keep and (position is not None or join.noted)
    finally:
        if not keep:
            shutil.rmtree(folder)


def _noted(file: Path, asked: str) -> Position | None:
    """Where the listing in a file came to, unless that is another one, or an old one, or none."""
    if not file.exists():
        return None
    with suppress(duckdb.Error, ValidationError), duckdb.connect(file, config=SETTINGS) as connection:
        position = Position.model_validate_json(Join(connection, (), None).note() or "")
        if position.asked == asked and datetime.now(UTC) - position.noted_at < MAX_AGE:
            return position
    return None
