"""Blobs that become files: large ones, such as weights, in parts of bounded size."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path, PurePosixPath

from obstore.store import AzureStore

from glint.adapters.blobs import find_blob, read_blob

PART_BYTES = 16_000_000


def download_blob(store: AzureStore, uri: str, key: str, folder: Path) -> Path:
    """A blob as a file below `folder`; what is there of the same address and etag is not fetched again.

    The file appears when it is whole. Raises ImageError, with status changed for a blob that is replaced meanwhile.
    """
    blob = find_blob(store, uri, key)
    version = hashlib.sha256(f"{uri}\0{blob.etag}\0{blob.size}".encode()).hexdigest()[:16]
    target = folder / version / PurePosixPath(key).name
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    file, name = tempfile.mkstemp(dir=target.parent)
    try:
        with os.fdopen(file, "wb") as growing:
            for start in range(0, blob.size, PART_BYTES):
                part = (start, min(start + PART_BYTES, blob.size))
                growing.write(read_blob(store, uri, key, blob.etag, None, part))
        Path(name).replace(target)
    finally:
        Path(name).unlink(missing_ok=True)
    return target
