"""The input of a job that came by name: a prefix, a manifest, a list in a file, or addresses one by one."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from pathlib import Path

import pyarrow as pa

from glint.adapters.files import local_path
from glint.adapters.images import Images, address
from glint.core.errors import GlintError
from glint.core.manifest import SCHEMA, Manifest, write_manifest
from glint.core.progress import Progress
from glint.core.submission import JobInput
from glint.pipelines.batch import freeze_input
from glint.pipelines.batch_run import job_folder

LISTS = (".csv", ".jsonl")


def open_input(
    asked: JobInput, images: Images, home: Path, job_id: str, check: Callable[[str], None], progress: Progress
) -> tuple[str, Manifest]:
    """What the job's source is called, and the manifest of its images, of which each address passes `check`.

    Lists give addresses without ETags, so that a change of an image meanwhile is not noticed. Raises GlintError for a
    source that is nothing of the kind, and whatever `check` raises.
    """
    if asked.uris:
        source, manifest = "a list of addresses", _from_uris(asked.uris, home, job_id, progress)
    elif asked.uri is not None and asked.uri.endswith(LISTS):
        source = asked.uri
        manifest = _from_uris(read_list(asked.uri, images), home, job_id, progress)
    else:
        source = str(asked.uri)
        place = source if source.startswith("az://") else local_path(source)
        manifest = freeze_input(place, images, home, progress, job_id)
    for batch in manifest.batches(["uri"]):
        for uri in batch.column("uri").to_pylist():
            check(uri)
    return source, manifest


def read_list(uri: str, images: Images) -> list[str]:
    """The addresses in the column or field `uri` of a CSV or JSONL file; relative ones lie beside it.

    Raises GlintError with the line of what is wrong.
    """
    text = _text(uri, images)
    entries = _csv(text, uri) if uri.endswith(".csv") else _jsonl(text, uri)
    folder = uri.rpartition("/")[0]
    return [address(entry, folder) for entry in entries]


def _text(uri: str, images: Images) -> str:
    whole = copy(images)
    whole.max_bytes = None  # which is for images
    try:
        return whole.read(uri).decode("utf-8-sig")  # as spreadsheets write it
    except UnicodeDecodeError:
        raise GlintError(f"input {uri} must be UTF-8") from None
    except GlintError as error:
        raise GlintError(f"input {uri} cannot be read: {error}") from None


def _csv(text: str, uri: str) -> Iterator[str]:
    rows = csv.DictReader(io.StringIO(text))
    if "uri" not in (rows.fieldnames or ()):
        raise GlintError(f"input {uri} needs a column uri; it has {', '.join(rows.fieldnames or ()) or 'none'}")
    for row in rows:
        yield _named(row["uri"], uri, rows.line_num)


def _jsonl(text: str, uri: str) -> Iterator[str]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError:
            raise GlintError(f"input {uri}, line {number}, is not JSON") from None
        yield _named(entry.get("uri") if isinstance(entry, dict) else entry, uri, number)


def _named(value: object, uri: str, number: int) -> str:
    if not isinstance(value, str) or not value:
        raise GlintError(f"input {uri}, line {number}, needs a uri, which is text")
    return value


def _from_uris(uris: Sequence[str], home: Path, job_id: str, progress: Progress) -> Manifest:
    """A manifest of these images, each once."""
    once = list(dict.fromkeys(uris))
    if len(once) < len(uris):
        progress.say(f"{len(uris) - len(once):,} addresses are named more than once and scored once")
    path = job_folder(home, job_id) / "listing.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    nothing = {name: pa.nulls(len(once), SCHEMA.field(name).type) for name in SCHEMA.names}
    rows = pa.table({**nothing, "uri": pa.array(once, pa.string())}, schema=SCHEMA)
    return write_manifest(path, [rows] if once else [], source="list")
