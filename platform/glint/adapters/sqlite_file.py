"""The file of the embedded store: its schema, and opening it whoever else may be opening it too."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from glint.core.errors import StoreError

APPLICATION_ID = 0x676C6E74  # "glnt": the header field by which a SQLite file says whose it is
SCHEMA_VERSION = 4
BUSY_S = 60.0

# Outcomes come in the order of their ids, which are hashes. The filter index repeats that order and carries every
# column that a filter may name, so that a rare value is found without reading the documents in between; an index for
# each column would find it at once, but cost writing 1.7 times the CPU.
_SCHEMA = f"""
CREATE TABLE outcomes (
    pk TEXT NOT NULL, id TEXT NOT NULL,
    status TEXT NOT NULL, label TEXT, decision TEXT, confidence REAL,
    document TEXT NOT NULL, etag TEXT NOT NULL, expires REAL,
    PRIMARY KEY (pk, id)
);
CREATE INDEX outcomes_filter ON outcomes (pk, id, status, label, decision, confidence, expires);
CREATE INDEX outcomes_expiry ON outcomes (expires) WHERE expires IS NOT NULL;
CREATE TABLE chunks (
    job_id TEXT NOT NULL, chunk INTEGER NOT NULL,
    document TEXT NOT NULL, etag TEXT NOT NULL, expires REAL,
    PRIMARY KEY (job_id, chunk)
);
CREATE INDEX chunks_expiry ON chunks (expires) WHERE expires IS NOT NULL;
CREATE TABLE jobs (
    id TEXT NOT NULL PRIMARY KEY, sort_key TEXT NOT NULL,
    document TEXT NOT NULL, etag TEXT NOT NULL
);
CREATE INDEX jobs_sort ON jobs (sort_key);
CREATE TABLE documents (
    kind TEXT NOT NULL, id TEXT NOT NULL, sort_key TEXT NOT NULL, part TEXT NOT NULL, open INTEGER NOT NULL,
    document TEXT NOT NULL, etag TEXT NOT NULL,
    PRIMARY KEY (kind, id)
);
CREATE INDEX documents_sort ON documents (kind, sort_key);
CREATE INDEX documents_open ON documents (kind, sort_key) WHERE open;
CREATE TABLE label_events (sort_key TEXT NOT NULL PRIMARY KEY, uri TEXT NOT NULL, document TEXT NOT NULL);
CREATE INDEX label_events_uri ON label_events (uri, sort_key);
CREATE TABLE layout (num_partitions INTEGER NOT NULL);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
"""

# What the machine or the file is to blame for; any other failure of SQLite is a mistake of ours.
_ENVIRONMENT = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
}


@contextmanager
def named_failures(path: Path) -> Iterator[None]:
    """Turn the failures that are not ours into StoreErrors that name the setting and the file."""
    try:
        yield
    except OSError as error:
        raise _unusable(path, f"cannot be opened: {error.strerror}") from error
    except sqlite3.DatabaseError as error:
        if _code(error) not in _ENVIRONMENT:
            raise
        raise _unusable(path, f"cannot be used: {error}") from error


def _code(error: sqlite3.DatabaseError) -> int:
    """The primary result code; an error of the Python module itself carries none."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def _unusable(path: Path, reason: str) -> StoreError:
    return StoreError(
        f"GLINT_STORE sqlite:///{path} {reason}; it must be a file of glint's own, or a new one, on a local disk that "
        "you may write to"
    )


def connect(path: Path, num_partitions: int) -> sqlite3.Connection:
    """Open the file, made when there is none, its folder too.

    The caller keeps threads apart and begins transactions by hand. Raises StoreError for a database of another
    program or of a newer glint, or one made with another number of partitions; beyond that, what `named_failures`
    names.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        if not _is_glints(connection):
            _create(connection, path, num_partitions)
        _check(connection, path, num_partitions)
        # A commit lost with the power is a chunk scored again on resuming; the file stays whole.
        connection.execute("PRAGMA synchronous = NORMAL")
        # Pages of the indexes are written again and again: letting 32 MB gather first nearly doubles the rate.
        connection.execute("PRAGMA wal_autocheckpoint = 8000")
    except BaseException:
        connection.close()
        raise
    return connection


def _is_glints(connection: sqlite3.Connection) -> bool:
    return _number(connection, "PRAGMA application_id") == APPLICATION_ID


def _create(connection: sqlite3.Connection, path: Path, num_partitions: int) -> None:
    # Another process may be making it meanwhile, whole in one transaction: hence the second looks.
    if _number(connection, "SELECT count(*) FROM sqlite_master") and not _is_glints(connection):
        raise _unusable(path, "is a database of another program")
    _write_ahead(connection)
    with transaction(connection):
        if not _is_glints(connection):
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute("INSERT INTO layout VALUES (?)", (num_partitions,))


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switch to a write-ahead log, for which SQLite does not wait by itself while another process switches too."""
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def _check(connection: sqlite3.Connection, path: Path, num_partitions: int) -> None:
    version = _number(connection, "PRAGMA user_version")
    if version != SCHEMA_VERSION:
        age = "a newer" if version > SCHEMA_VERSION else "an older"
        raise StoreError(
            f"GLINT_STORE sqlite:///{path} has schema version {version}, made by {age} glint; this one knows version "
            f"{SCHEMA_VERSION}: name another file"
        )
    partitions = _number(connection, "SELECT num_partitions FROM layout")
    if partitions != num_partitions:
        raise StoreError(
            f"GLINT_STORE sqlite:///{path} was made with num_partitions {partitions}, got {num_partitions}: keep it "
            "or name another file"
        )


def _number(connection: sqlite3.Connection, query: str) -> int:
    return int(connection.execute(query).fetchone()[0])


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit what is done inside, or nothing of it; waits for other writers up to BUSY_S seconds."""
    # The write lock is taken at once: a transaction that first reads could not wait for it.
    connection.execute("BEGIN IMMEDIATE")
    with connection:
        yield
