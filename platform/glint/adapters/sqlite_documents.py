"""Documents of the books in the embedded store: each function does one thing on an open connection."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from glint.adapters.sqlite_file import transaction
from glint.core.errors import ConflictError
from glint.core.stores import ABSENT, Document, DocumentPage

_COLUMNS = "kind, id, sort_key, part, open, document"
_PUT = "INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?, ?, ?, lower(hex(randomblob(8)))) RETURNING etag"


def put(connection: sqlite3.Connection, document: Document, etag: str | None) -> str:
    """Insert or replace; with an etag only the one that has it, ABSENT for none. Raises ConflictError otherwise."""
    with transaction(connection):
        if etag is not None:
            query = "SELECT etag FROM documents WHERE kind = ? AND id = ?"
            row = connection.execute(query, (document.kind, document.id)).fetchone()
            if (row[0] if row else ABSENT) != etag:
                raise ConflictError(f"{document.kind} {document.id} was changed meanwhile")
        row = (document.kind, document.id, document.sort_key, document.group, document.open, json.dumps(document.body))
        return str(connection.execute(_PUT, row).fetchone()[0])


def get(connection: sqlite3.Connection, kind: str, id: str) -> tuple[Document, str] | None:
    """The document and its etag."""
    query = f"SELECT {_COLUMNS}, etag FROM documents WHERE kind = ? AND id = ?"
    row = connection.execute(query, (kind, id)).fetchone()
    return (_document(row[:-1]), row[-1]) if row else None


def page(
    connection: sqlite3.Connection, kind: str, group: str | None, open: bool | None, cursor: str | None, limit: int
) -> DocumentPage:
    """The greatest sort keys below the cursor first."""
    tests = {"kind = ?": kind, "part = ?": group, "open = ?": open, "sort_key < ?": cursor}
    wanted = {test: value for test, value in tests.items() if value is not None}
    # Said as a constant, so that the index of the open ones alone serves.
    conditions = " AND ".join(wanted).replace("open = ?", "open AND open = ?" if open else "NOT open AND open = ?")
    query = f"SELECT {_COLUMNS} FROM documents WHERE {conditions} ORDER BY sort_key DESC LIMIT {limit + 1}"
    rows = connection.execute(query, list(wanted.values())).fetchall()
    found = tuple(_document(row) for row in rows[:limit])
    return DocumentPage(found, found[-1].sort_key if len(rows) > limit else None)


def delete(connection: sqlite3.Connection, kind: str, id: str) -> None:
    """Take it away."""
    with transaction(connection):
        connection.execute("DELETE FROM documents WHERE kind = ? AND id = ?", (kind, id))


def _document(row: Any) -> Document:
    kind, id, sort_key, group, open, body = row
    return Document(kind, id, sort_key, json.loads(body), group, bool(open))
