"""Whether images can be read at all, asked once for each container before a long job begins, and those that can.

To be asked before Ray starts, and before what takes long to import: a wrong setting is then said within seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from glint.adapters.blob_account import addressable, container_and_key
from glint.adapters.images import Images
from glint.core.errors import ImageError
from glint.core.manifest import Manifest


def check_input(source: str, images: Images) -> None:
    """Raise GlintError where a manifest names what cannot be read, or an az:// prefix cannot be listed."""
    if source.startswith("az://"):
        next(iter(images.list(source)), None)
    elif Path(source).is_file():
        check_access(Manifest.open(source, option="--input"), images)


def check_access(manifest: Manifest, images: Images, split: str | None = None) -> None:
    """Raise GlintError where the settings let nobody read a container that the manifest, or its split, names.

    A job would otherwise give every image its outcome `denied`, once and for all; what is wrong with single blobs stays
    their outcome. One request for each container, however long the manifest is.
    """
    asked = set[str]()
    for uri in _some_of(manifest) if split is None else _all_of(manifest, split):
        if not uri.startswith("az://"):
            continue
        container, key = container_and_key(uri)
        if container not in asked and addressable(key):
            asked.add(container)
            images.check_readable(uri)


def _all_of(manifest: Manifest, split: str) -> Iterator[str]:
    for batch in manifest.batches(["uri"], split):
        yield from batch["uri"].to_pylist()


def _some_of(manifest: Manifest) -> Iterator[str]:
    """The addresses of the first row group, and the first and last in order of every other, from the file's footer."""
    with pq.ParquetFile(manifest.path) as file:
        yield from file.read_row_group(0, columns=["uri"])["uri"].to_pylist()
        number = file.schema_arrow.names.index("uri")
        for group in range(1, file.num_row_groups):
            known = file.metadata.row_group(group).column(number).statistics
            if known is not None and known.has_min_max:
                yield from (known.min, known.max)


def readable(rows: pa.Table, images: Images, at_once: int) -> Iterator[bytes]:
    """Those images of a table (uri, etag) that can be read, in order; `at_once` of them are asked for at a time."""
    for part in rows.select(["uri", "etag"]).to_batches(max_chunksize=at_once):
        for data in images.read_many(part["uri"].to_pylist(), part["etag"].to_pylist()):
            if not isinstance(data, ImageError):
                yield data
