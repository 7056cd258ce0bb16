"""The manifest: a frozen list of images with their labels and splits, in one Parquet file named by its digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from glint.core.classes import class_order
from glint.core.errors import GlintError
from glint.core.job import CHUNK_ROWS
from glint.core.splits import SPLITS
from glint.core.whole import whole

SCHEMA = pa.schema(
    [
        ("uri", pa.string()),
        ("etag", pa.string()),
        ("size", pa.int64()),
        ("labels", pa.list_(pa.string())),
        ("group", pa.string()),
        ("split", pa.string()),
    ]
)
"""The six named columns. labels null = unlabelled; group null = the uri itself; split is train, val, test or null."""

ROW_GROUP_ROWS = 100 * CHUNK_ROWS
"""Rows in a row group: whole chunks of a batch job, so that a chunk is read from one row group."""

FOOTER = b"glint.manifest"
HOW_TO_MAKE_ONE = "make one with: glint snapshot SOURCE --out manifest.parquet"


@dataclass(frozen=True)
class Manifest:
    """A manifest on disk: what its footer says. Rows are read when asked for; small to pickle."""

    path: Path
    source: str
    created_at: datetime
    classes: tuple[str, ...]
    split_rule: Mapping[str, Any]
    parent: str | None
    digest: str
    num_rows: int
    columns: tuple[str, ...]
    """The further columns of the label file, which follow the six of SCHEMA."""

    @classmethod
    def open(cls, path: str | Path, option: str = "--manifest") -> Manifest:
        """Read a manifest's footer; GlintError names the option, the path and how to make one."""
        place = Path(path).expanduser().absolute()
        metadata, names = _metadata(place, option)
        footer = json.loads(metadata.metadata[FOOTER])
        return cls(
            path=place,
            source=footer["source"],
            created_at=datetime.fromisoformat(footer["created_at"]),
            classes=tuple(footer["classes"]),
            split_rule=footer["split_rule"],
            parent=footer["parent"],
            digest=footer["digest"],
            num_rows=metadata.num_rows,
            columns=tuple(name for name in names if name not in SCHEMA.names),
        )

    def batches(
        self, columns: Sequence[str] | None = None, split: str | None = None, labelled: bool | None = None
    ) -> Iterator[pa.RecordBatch]:
        """The rows in order, a row group (at most ROW_GROUP_ROWS) in memory at a time.

        Only `columns` (None = all), in that order; only rows of `split`; only rows that have labels (True) or none
        (False). Raises GlintError for a column or split that does not exist.
        """
        wanted = self._known(columns)
        if split is not None and split not in SPLITS:
            raise GlintError(f"--split must be one of {', '.join(SPLITS)}, got {split}")
        needed = {*wanted, *(["split"] if split else []), *(["labels"] if labelled is not None else [])}
        return self._filtered(wanted, needed, split, labelled)

    def table(
        self, columns: Sequence[str] | None = None, split: str | None = None, labelled: bool | None = None
    ) -> pa.Table:
        """The rows of `batches` as one table in memory."""
        schema = pa.schema([self._field(name) for name in self._known(columns)])
        return pa.Table.from_batches(self.batches(columns, split, labelled), schema)

    def rows(self, start: int, stop: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Rows `start` up to but without `stop`, as a slice would take them, from the row groups that hold them."""
        wanted = self._known(columns)
        with pq.ParquetFile(self.path) as file:
            groups, first = _covering(file.metadata, start, stop)
            found = file.read_row_groups(groups, columns=wanted).select(wanted)
        return found.slice(start - first, max(stop - start, 0)).replace_schema_metadata()

    def _filtered(
        self, wanted: Sequence[str], needed: set[str], split: str | None, labelled: bool | None
    ) -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(self.path) as file:
            for group in range(file.num_row_groups):
                rows = file.read_row_group(group, columns=sorted(needed))
                if split is not None:
                    rows = rows.filter(pc.equal(rows["split"], split))
                if labelled is not None:
                    rows = rows.filter(pc.is_valid(rows["labels"]) if labelled else pc.is_null(rows["labels"]))
                yield from rows.select(wanted).combine_chunks().replace_schema_metadata().to_batches()

    def _known(self, columns: Sequence[str] | None) -> list[str]:
        every = [*SCHEMA.names, *self.columns]
        unknown = [name for name in columns or () if name not in every]
        if unknown:
            raise GlintError(f"{self.path} has no column {unknown[0]!r}; its columns are {', '.join(every)}")
        return every if columns is None else list(columns)

    def _field(self, name: str) -> pa.Field:
        return SCHEMA.field(name) if name in SCHEMA.names else pa.field(name, pa.string())


def write_manifest(
    path: str | Path,
    batches: Iterable[pa.Table | pa.RecordBatch],
    *,
    source: str,
    split_rule: Mapping[str, Any] | None = None,
    parent: str | None = None,
) -> Manifest:
    """Stream rows into a manifest: it appears whole or not at all, and a row group is in memory at a time.

    Every batch holds the columns of SCHEMA and the same further ones, which are kept as strings. `source` says where
    the images were listed, `parent` is the digest of the manifest that this one follows. GlintError if there is no row.
    """
    place = Path(path).expanduser().absolute()
    footer = {"source": source, "split_rule": dict(split_rule or {}), "parent": parent}
    with whole(place) as partial:
        _write(partial, _row_groups(batches), footer)
    return Manifest.open(place)


def _write(place: Path, groups: Iterator[pa.Table], footer: dict[str, Any]) -> None:
    first = next(groups, None)
    if first is None:
        raise GlintError(f"{footer['source']}: a manifest needs at least one image")
    rows, labels = RowDigest(), set[str]()
    with pq.ParquetWriter(place, first.schema, compression="zstd") as writer:
        group: pa.Table | None = first
        while group is not None:
            rows.add(group)
            labels.update(pc.unique(pc.list_flatten(group["labels"].combine_chunks())).to_pylist())
            writer.write_table(group, row_group_size=ROW_GROUP_ROWS)
            group = next(groups, None)
        footer |= {"created_at": datetime.now(UTC).isoformat(), "classes": class_order(labels), "digest": rows.digest}
        writer.add_key_value_metadata({FOOTER: json.dumps(footer).encode()})


def _row_groups(batches: Iterable[pa.Table | pa.RecordBatch]) -> Iterator[pa.Table]:
    """Tables of exactly ROW_GROUP_ROWS rows, the last one shorter, in the schema of a manifest."""
    waiting: list[pa.Table] = []
    for batch in batches:
        waiting.append(_conform(pa.table(batch)))
        if sum(table.num_rows for table in waiting) < ROW_GROUP_ROWS:
            continue
        rows = pa.concat_tables(waiting)
        whole = rows.num_rows - rows.num_rows % ROW_GROUP_ROWS
        yield from (rows.slice(start, ROW_GROUP_ROWS) for start in range(0, whole, ROW_GROUP_ROWS))
        waiting = [rows.slice(whole)]
    if any(table.num_rows for table in waiting):
        yield pa.concat_tables(waiting)


def _conform(rows: pa.Table) -> pa.Table:
    further = [name for name in rows.schema.names if name not in SCHEMA.names]
    schema = pa.schema([*SCHEMA, *(pa.field(name, pa.string()) for name in further)])
    return rows.select(schema.names).cast(schema)


class RowDigest:
    """The digest of rows in whatever order: SHA-256 of the sum, modulo 2**256, of their SHA-256 hashes.

    A row is hashed as the JSON list of its six named columns in the order of SCHEMA.
    """

    def __init__(self) -> None:
        self._sum = 0

    def add(self, rows: pa.Table) -> None:
        """Count these rows in."""
        for row in zip(*(rows[name].to_pylist() for name in SCHEMA.names), strict=True):
            self._sum += int.from_bytes(hashlib.sha256(json.dumps(row).encode()).digest(), "big")

    @property
    def digest(self) -> str:
        """64 hexadecimal digits."""
        return hashlib.sha256((self._sum % 2**256).to_bytes(32, "big")).hexdigest()


def _covering(metadata: Any, start: int, stop: int) -> tuple[list[int], int]:
    """The row groups that hold rows start..stop, and the number of the first row in them."""
    groups: list[int] = []
    first = offset = 0
    for group in range(metadata.num_row_groups):
        end = offset + metadata.row_group(group).num_rows
        if offset < stop and start < end:
            first = first if groups else offset
            groups.append(group)
        offset = end
    return groups, first


def _metadata(place: Path, option: str) -> tuple[Any, list[str]]:
    """The Parquet metadata and column names of a manifest, without its rows."""
    try:
        with pq.ParquetFile(place) as file:
            metadata, names = file.metadata, file.schema_arrow.names
    except FileNotFoundError:
        raise GlintError(f"{option} {place} does not exist; {HOW_TO_MAKE_ONE}") from None
    except (OSError, pa.ArrowInvalid):
        raise GlintError(f"{option} {place} is not a manifest of glint; {HOW_TO_MAKE_ONE}") from None
    if FOOTER not in (metadata.metadata or {}):
        raise GlintError(f"{option} {place} is Parquet, but not a manifest of glint; {HOW_TO_MAKE_ONE}")
    return metadata, names
