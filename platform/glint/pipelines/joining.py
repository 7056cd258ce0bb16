"""Images and labels side by side in a DuckDB file, so that their join and its checks spill to disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pyarrow as pa

MEMORY_LIMIT = "256MB"
BATCH_ROWS = 9900
INTERRUPTED = "Query interrupted"
SETTINGS: dict[str, Any] = {
    "memory_limit": MEMORY_LIMIT,
    "threads": 2,
    "preserve_insertion_order": False,
    # Nothing is fetched: what the queries need is built in.
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C during a statement, which DuckDB tells as a bare RuntimeError, is one like any other."""
    try:
        yield
    except RuntimeError as error:
        if str(error) != INTERRUPTED:
            raise
        raise KeyboardInterrupt from None


class Join:
    """Two tables: images (uri, etag, size) and labels (uri, path, label, group, then the further columns).

    A third one has the note that was last made; what the connection's file has of them already stays.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, further: Sequence[str], separator: str | None) -> None:
        self._connection = connection
        self._separator = separator
        self._further = tuple(further)
        self.noted = False
        # A file may have columns `Lot` and `lot`, which SQL takes for one: theirs are numbered.
        self._columns = [f"c{number}" for number in range(len(self._further))]
        columns = ", ".join(f"{name} VARCHAR" for name in ("uri", "path", "label", '"group"', *self._columns))
        connection.execute("CREATE TABLE IF NOT EXISTS images (uri VARCHAR, etag VARCHAR, size BIGINT)")
        connection.execute(f"CREATE TABLE IF NOT EXISTS labels ({columns})")
        connection.execute("CREATE TABLE IF NOT EXISTS notes (note VARCHAR)")

    def add_listed(self, images: pa.Table, labels: pa.Table | None, note: str) -> None:
        """Add rows of the images and of the labels table, and make a note: all of it or nothing."""
        self._connection.begin()
        self._add("images", images)
        if labels is not None:
            self._add("labels", labels)
        self._connection.execute("DELETE FROM notes")
        self._connection.execute("INSERT INTO notes VALUES (?)", [note])
        self._connection.commit()
        self.noted = True

    def note(self) -> str | None:
        """The last one."""
        notes = self._values("SELECT note FROM notes")
        return notes[0] if notes else None

    def clear_labels(self) -> None:
        """Take away all labels."""
        self._connection.execute("DELETE FROM labels")

    def add_labels(self, rows: pa.Table) -> None:
        """Add rows of the labels table: its columns in order, whatever their names."""
        self._add("labels", rows)

    def count(self, what: str) -> int:
        """How many rows the FROM clause `what` has."""
        return int(self._values(f"SELECT count(*) FROM {what}")[0])

    def repeated_paths(self) -> list[str]:
        """Paths, as written, of label rows that are about the same image as another row."""
        repeated = "SELECT uri FROM labels GROUP BY uri HAVING count(*) > 1"
        return self._values(f"SELECT path FROM labels WHERE uri IN ({repeated}) ORDER BY uri, path")

    def orphans(self, most: int) -> list[str]:
        """Paths, as written, of label rows that have no image; the first so many."""
        return self._values(f"SELECT path FROM labels ANTI JOIN images USING (uri) ORDER BY path LIMIT {most}")

    def groups(self, label: str | None = None) -> list[str]:
        """The groups of labelled images, of those with this label where one is given."""
        names = "[label]" if self._separator is None else "[trim(name) FOR name IN string_split(label, $2)]"
        return self._values(
            'SELECT DISTINCT "group" FROM images JOIN labels USING (uri) WHERE "group" IS NOT NULL '
            f'AND label IS NOT NULL AND ($1 IS NULL OR list_contains({names}, $1)) ORDER BY "group"',
            [label] if self._separator is None else [label, self._separator],
        )

    def rows(self) -> Iterator[pa.Table]:
        """Every image in the order of addresses: uri, etag, size, label, group and the further columns."""
        columns = ", ".join(["uri", "etag", "size", "label", '"group"', *self._columns])
        joined = self._connection.sql(f"SELECT {columns} FROM images LEFT JOIN labels USING (uri) ORDER BY uri")
        names = ["uri", "etag", "size", "label", "group", *self._further]
        for batch in joined.to_arrow_reader(BATCH_ROWS):
            yield pa.table(batch.columns, names=names)

    def _add(self, table: str, rows: pa.Table) -> None:
        self._connection.register("incoming", rows)
        self._connection.execute(f"INSERT INTO {table} SELECT * FROM incoming")
        self._connection.unregister("incoming")

    def _values(self, query: str, parameters: Sequence[str | None] = ()) -> list[Any]:
        """The one column of a query. All of it is fetched: an unfinished result would block the connection."""
        return [value for (value,) in self._connection.execute(query, list(parameters)).fetchall()]


@contextmanager
def open_join(further: Sequence[str], separator: str | None = None) -> Iterator[Join]:
    """An empty join in a temporary folder, which is gone at the end; `separator` parts several labels of an image."""
    with TemporaryDirectory(prefix="glint-snapshot-") as folder:
        settings = SETTINGS | {"temp_directory": str(Path(folder, "spilled"))}
        with duckdb.connect(Path(folder, "join.duckdb"), config=settings) as connection:
            yield Join(connection, further, separator)
