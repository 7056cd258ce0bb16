"""API keys: a file of hashes under GLINT_HOME, read again whenever it changes, so that keys rotate without a restart.

A key is 256 random bits, so its plain SHA-256 tells nothing of it: there are no words to try.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from glint.core.errors import GlintError
from glint.core.locks import locked

Scope = Literal["classify", "batch", "metrics"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
PREFIX = "glint_"


class Key(BaseModel):
    """One key, as the file has it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    sha256: str
    scopes: tuple[Scope, ...] = Field(min_length=1)
    requests_per_s: float | None = Field(default=None, gt=0, description="what the key may ask; None = any number")
    created_at: datetime = Field(default_factory=lambda: datetime.now(UTC))


class KeyFile(BaseModel):
    """keys.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: tuple[Key, ...] = ()


class Keys:
    """The keys of a file, which need not exist yet. Where it is damaged, a server keeps to what it read before."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, int] | None = None
        self._by_hash: dict[str, Key] = {}

    def find(self, token: str) -> Key | None:
        """The key that this text is, None for none; the file is read again when it has changed."""
        self._refresh()
        return self._by_hash.get(_hash(token))

    def _refresh(self) -> None:
        try:
            status = self.path.stat()
            seen = (status.st_mtime_ns, status.st_ino)
            if seen != self._seen:
                self._by_hash = {key.sha256: key for key in read_keys(self.path)}
                self._seen = seen
        except FileNotFoundError:
            self._seen, self._by_hash = None, {}
        except (GlintError, OSError):
            pass  # not readable, or half-edited by hand: `glint keys list` says what is wrong with it


def read_keys(path: Path) -> tuple[Key, ...]:
    """All keys of a file, none where it does not exist; raises GlintError where it is no file of keys."""
    try:
        return KeyFile.model_validate_json(path.read_bytes()).keys
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise GlintError(f"{path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise GlintError(f"{path} is no file of keys: {first['loc']}: {first['msg']}") from None


def add_key(path: Path, name: str, scopes: tuple[str, ...], requests_per_s: float | None = None) -> str:
    """Make a key and keep its hash; returns the key itself, which is nowhere kept."""
    token = PREFIX + secrets.token_urlsafe(32)
    try:
        new = Key.model_validate(
            {"name": name, "sha256": _hash(token), "scopes": scopes, "requests_per_s": requests_per_s}
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise GlintError(f"{first['loc'][0]}: {first['msg']}, got {first['input']!r}") from None
    with _held(path):
        keys = read_keys(path)
        if name in {key.name for key in keys}:
            raise GlintError(f"NAME {name!r} is taken: remove that key, or name another")
        _write(path, (*keys, new))
    return token


def remove_key(path: Path, name: str) -> None:
    """Take a key away; raises GlintError naming those that there are."""
    with _held(path):
        keys = read_keys(path)
        kept = tuple(key for key in keys if key.name != name)
        if len(kept) == len(keys):
            known = ", ".join(key.name for key in keys) or "none"
            raise GlintError(f"NAME {name!r} is no key of {path}; there are: {known}")
        _write(path, kept)


def _held(path: Path) -> AbstractContextManager[None]:
    """While nobody else changes the file: of two changes at once neither shall undo the other."""
    return locked(path.with_name(f"{path.name}.lock"))


def _write(path: Path, keys: tuple[Key, ...]) -> None:
    """At once or not at all, and readable by its owner alone."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(KeyFile(keys=keys).model_dump_json(indent=2) + "\n")
    Path(name).replace(path)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
