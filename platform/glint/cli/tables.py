"""Results as tables for a person."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from rich.table import Table
from rich.text import Text


def fields(result: BaseModel, *without: str) -> Table:
    """A result's fields, a line each, but for those that are told in another way."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="cyan")
    table.add_column(overflow="fold")
    for name in type(result).model_fields:
        if name in without:
            continue
        table.add_row(name.replace("_", " "), value_text(getattr(result, name)))
    return table


def rows(columns: Sequence[str], lines: Iterable[Sequence[Any]]) -> Table:
    """Lines under headings; numbers are set to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    cells = [[value if isinstance(value, Text) else Text(value_text(value)) for value in line] for line in lines]
    for i, name in enumerate(columns):
        texts = [line[i].plain.replace(",", "").replace(".", "") for line in cells if line[i]]
        numeric = bool(cells) and all(map(str.isdigit, texts))
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for line in cells:
        table.add_row(*line)
    return table


def value_text(value: Any) -> str:
    """A value as a person would write it."""
    if value is None:
        return ""
    if isinstance(value, BaseModel):
        return value_text(value.model_dump(exclude_none=True))
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {value_text(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(value_text, value))
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)
