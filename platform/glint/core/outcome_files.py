"""Outcomes as CSV and Parquet, a page of them in memory at a time."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from glint.core.outcome import ROW_COLUMNS, Outcome, outcome_row

NUMBERS = ("confidence",)
"""Columns of a row that are numbers; the others, and the manifest's further ones, are text."""


async def csv_lines(pages: AsyncIterator[Sequence[Outcome]]) -> AsyncIterator[str]:
    """Blocks of CSV: the header, whose further columns are those of the first outcome, then the rows."""
    names: list[str] | None = None
    async for page in pages:
        if not page:
            continue
        block = io.StringIO()
        rows = [outcome_row(outcome) for outcome in page]
        writer = csv.DictWriter(block, names or list(rows[0]), extrasaction="ignore")
        if names is None:
            names = list(rows[0])
            writer.writeheader()
        writer.writerows(rows)
        yield block.getvalue()
    if names is None:
        block = io.StringIO()
        csv.writer(block).writerow(ROW_COLUMNS)
        yield block.getvalue()


async def write_parquet(path: Path, pages: AsyncIterator[Sequence[Outcome]]) -> int:
    """Write a Parquet file of a row group for each page; returns how many outcomes it has."""
    writer, num = None, 0
    try:
        async for page in pages:
            if not page:
                continue
            rows = [outcome_row(outcome) for outcome in page]
            writer = writer or pq.ParquetWriter(path, _schema(rows[0]))
            writer.write_table(_table(rows, writer.schema))
            num += len(rows)
        writer = writer or pq.ParquetWriter(path, _schema(ROW_COLUMNS))
    finally:
        if writer is not None:
            writer.close()
    return num


def _schema(columns: Iterable[str]) -> pa.Schema:
    return pa.schema([(name, pa.float64() if name in NUMBERS else pa.string()) for name in columns])


def _table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    columns = {
        field.name: pa.array([_cell(row.get(field.name), field.type) for row in rows], field.type) for field in schema
    }
    return pa.table(columns, schema=schema)


def _cell(value: Any, kind: pa.DataType) -> Any:
    return str(value) if value is not None and pa.types.is_string(kind) else value
