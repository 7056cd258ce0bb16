"""Fingerprints of many images on Ray: hashed where they are read, so that only the hashes travel."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import torch

from glint.adapters.images import Images
from glint.core.errors import ImageError
from glint.core.progress import Progress
from glint.pipelines.loading import Batch
from glint.pipelines.scoring_rows import rows_through
from glint.vision.decode import Limits
from glint.vision.fingerprint import Fingerprint, fingerprint

COLUMNS = ("uri", "sha256", "looks", "seen")


def take_fingerprints(table: pa.Table, images: Images, limits: Limits, progress: Progress) -> dict[str, Fingerprint]:
    """By address, of the rows of `table` (uri, etag) that can be read."""
    found: dict[str, Fingerprint] = {}
    for batch in rows_through(FingerprintRows, (images, limits), table, progress, "comparing with training"):
        for uri, sha256, looks, seen in zip(*(batch[name].tolist() for name in COLUMNS), strict=True):
            if sha256:
                found[uri] = Fingerprint(sha256, looks if seen else None)
    return found


class FingerprintRows:
    """Ray Data stage: rows become COLUMNS; sha256 is empty where unreadable, looks (uint64) is none unless seen."""

    def __init__(self, images: Images, limits: Limits) -> None:
        self._images, self._limits = images, limits
        self._threads = ThreadPoolExecutor(images.read_threads, "glint-hash")
        torch.set_num_threads(1)

    def __call__(self, batch: Batch) -> Batch:
        """Hash a batch with the columns uri and etag."""
        found = list(self._threads.map(self._fingerprint, batch["uri"].tolist(), batch["etag"].tolist()))
        return {
            "uri": batch["uri"],
            "sha256": np.array([one.sha256 for one in found], object),
            "looks": np.array([one.looks or 0 for one in found], np.uint64),
            "seen": np.array([one.looks is not None for one in found], bool),
        }

    def _fingerprint(self, uri: str, etag: str | None) -> Fingerprint:
        try:
            return fingerprint(self._images.read(uri, etag), self._limits)
        except ImageError:
            return Fingerprint("", None)
