"""The input of a job that came by name: a prefix, a manifest, a list in a file, or addresses one by one."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import pyarrow as pa

from glint.adapters.files import local_path
from glint.adapters.images import Images, address
from glint.core.errors import GlintError
from glint.core.manifest import SCHEMA, Manifest, write_manifest
from glint.core.progress import Progress
from glint.core.submission import LISTS, JobInput
from glint.pipelines.batch import freeze_input
from glint.pipelines.batch_run import job_folder

TAKEN = ("uri", "group")
"""Columns of a list that are the manifest's own; its others of these names are left out, for they are not pinned."""

Entry = Mapping[str, str | None]
"""One image of a list: `uri`, and what else its row says."""


def open_input(
    asked: JobInput, images: Images, home: Path, job_id: str, check: Callable[[str], None], progress: Progress
) -> tuple[str, Manifest]:
    """What the job's source is called, and the manifest of its images, of which each address passes `check`.

    Lists give addresses without ETags, so that a change of an image meanwhile is not noticed; further columns of a list
    are the manifest's. Raises GlintError for a source that is nothing of the kind, and whatever `check` raises.
    """
    if asked.uris:
        entries: Sequence[Entry] = [{"uri": uri} for uri in asked.uris]
        source = "a list of addresses"
        manifest = _from_entries(source, entries, home, job_id, progress)
    elif asked.uri is not None and asked.uri.endswith(LISTS):
        source = asked.uri
        manifest = _from_entries(source, read_list(asked.uri, images), home, job_id, progress)
    else:
        source = str(asked.uri)
        place = source if source.startswith("az://") else local_path(source)
        manifest = freeze_input(place, images, home, progress, job_id)
    for batch in manifest.batches(["uri"]):
        for uri in batch.column("uri").to_pylist():
            check(uri)
    return source, manifest


def read_list(uri: str, images: Images) -> list[Entry]:
    """The rows of a CSV file with a column `uri`, or of a JSONL file: objects with that field, or addresses alone.

    Relative addresses lie beside the file; values are text, empty ones None. Raises GlintError with the line of what is
    wrong.
    """
    text = _text(uri, images)
    entries = _csv(text, uri) if uri.endswith(".csv") else _jsonl(text, uri)
    folder = uri.rpartition("/")[0]
    return [{**entry, "uri": address(str(entry["uri"]), folder)} for entry in entries]


def _text(uri: str, images: Images) -> str:
    whole = copy(images)
    whole.max_bytes = None  # which is for images
    try:
        return whole.read(uri).decode("utf-8-sig")  # as spreadsheets write it
    except UnicodeDecodeError:
        raise GlintError(f"input {uri} must be UTF-8") from None
    except GlintError as error:
        raise GlintError(f"input {uri} cannot be read: {error}") from None


def _csv(text: str, uri: str) -> Iterator[Entry]:
    rows = csv.DictReader(io.StringIO(text))
    try:
        if "uri" not in (rows.fieldnames or ()):
            raise GlintError(f"input {uri} needs a column uri; it has {', '.join(rows.fieldnames or ()) or 'none'}")
        for row in rows:
            yield _named(row, uri, rows.line_num)
    except csv.Error as error:
        raise GlintError(f"input {uri}, line {rows.line_num}, is not CSV: {error}") from None


def _jsonl(text: str, uri: str) -> Iterator[Entry]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            raise GlintError(f"input {uri}, line {number}, is not JSON") from None
        yield _named(entry if isinstance(entry, dict) else {"uri": entry}, uri, number)


def _named(row: Mapping[str | None, Any], uri: str, number: int) -> Entry:
    """A row as text, without cells that have no name."""
    if not isinstance(row.get("uri"), str) or not row["uri"]:
        raise GlintError(f"input {uri}, line {number}, needs a uri, which is text")
    cells = {name: _cell(value) for name, value in row.items() if name}
    try:
        "".join(one for pair in cells.items() for one in pair if one).encode()
    except UnicodeEncodeError:
        raise GlintError(f"input {uri}, line {number}, has half of a character, which is no text") from None
    return cells


def _cell(value: Any) -> str | None:
    return (value or None) if isinstance(value, str | None) else json.dumps(value)


def _from_entries(source: str, entries: Sequence[Entry], home: Path, job_id: str, progress: Progress) -> Manifest:
    """A manifest of these images, each once, as the first row about it says."""
    if not entries:
        raise GlintError(f"input {source} names no image")
    once: dict[str | None, Entry] = {}
    for entry in entries:
        once.setdefault(entry["uri"], entry)
    if len(once) < len(entries):
        progress.say(f"{len(entries) - len(once):,} addresses are named more than once and scored once")
    named = dict.fromkeys(name for entry in once.values() for name in entry)
    unused = [name for name in named if name in SCHEMA.names and name not in TAKEN]
    if unused:
        progress.say(f"columns of the list that are not used: {', '.join(unused)}")
    path = job_folder(home, job_id) / "listing.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {name: pa.nulls(len(once), SCHEMA.field(name).type) for name in SCHEMA.names}
    for name in named:
        if name not in unused:
            columns[name] = pa.array([entry.get(name) for entry in once.values()], pa.string())
    return write_manifest(path, [pa.table(columns)], source="list")
