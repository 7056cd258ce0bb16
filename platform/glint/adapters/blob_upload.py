"""Uploads a folder to a container, and makes that where there is none."""

from __future__ import annotations

import hashlib
import mimetypes
import os
import time
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

from azure.core.exceptions import AzureError, ResourceExistsError, ResourceNotFoundError
from azure.storage.blob import ContainerClient, ContentSettings
from pydantic import BaseModel, Field

from glint.adapters.blob_account import BlobAccount, addressable, container_and_key
from glint.adapters.blob_admin import FIRST_REQUEST, NUM_THREADS, first, open_service, refusal_of
from glint.adapters.files import Listed, list_files, local_path
from glint.core.errors import GlintError
from glint.core.progress import Progress, Silent

SILENT = Silent()


class Uploaded(BaseModel):
    """What an upload did."""

    source: str
    target: str
    created: bool = Field(description="whether the container was made")
    uploaded: int
    skipped: int = Field(description="files whose content was there already")
    ignored: dict[str, int] = Field(description="what was not uploaded, by reason")
    bytes: int = Field(description="uploaded")
    seconds: float


class _Local(NamedTuple):
    place: str
    blob: str


def upload(
    account: BlobAccount, folder: str, target: str, progress: Progress = SILENT, num_threads: int = NUM_THREADS
) -> Uploaded:
    """Upload the files below a folder to az://CONTAINER/PREFIX, except what is there with the same content.

    The container is made where there is none. Hidden files are left out. The same call goes on after an interruption.
    Raises GlintError naming the setting, the container or the file that is to be changed.
    """
    if not target.startswith("az://"):
        raise GlintError(f"TARGET {target!r} must be az://CONTAINER or az://CONTAINER/PREFIX")
    if not os.path.isdir(folder):  # noqa: PTH112  paths are strings here, as in files
        raise GlintError(f"DIR {folder} is no folder")
    started = time.monotonic()
    name, key = container_and_key(target)
    prefix = f"{key.rstrip('/')}/" if key.rstrip("/") else ""
    if prefix and not addressable(prefix.removesuffix("/")):
        raise GlintError(f"TARGET {target!r}: a prefix has no empty part, no . or .. and no control character")
    account.check_name_server()
    with open_service(account, num_threads) as service:
        container = service.get_container_client(name)
        try:
            there, created = _contents(container, prefix, progress)
            work = _Upload(container, there)
            ignored = work.run(folder, prefix, progress, num_threads)
        except AzureError as error:
            reason = account.explain(refusal_of(error), name)
            raise GlintError(f"TARGET {target} cannot be written: {reason}") from None
    return Uploaded(
        source=local_path(folder),
        target=target,
        created=created,
        uploaded=work.uploaded,
        skipped=work.skipped,
        ignored=dict(ignored),
        bytes=work.num_bytes,
        seconds=round(time.monotonic() - started, 2),
    )


class _Upload:
    def __init__(self, container: ContainerClient, there: dict[str, bytes]) -> None:
        self._container = container
        self._there = there
        self.uploaded = self.skipped = self.num_bytes = 0

    def run(self, folder: str, prefix: str, progress: Progress, num_threads: int) -> Counter[str]:
        """Upload, several files at once and few in memory; returns what was left out, by reason."""
        ignored: Counter[str] = Counter()
        total = sum(1 for _ in _files(folder, prefix, Counter()))
        progress.begin("uploading", total, "files")
        waiting: deque[Future[int | None]] = deque()
        with ThreadPoolExecutor(num_threads, "glint-upload") as pool:
            try:
                for file in _files(folder, prefix, ignored):
                    waiting.append(pool.submit(self._put, file))
                    if len(waiting) >= 2 * num_threads:
                        self._count(waiting.popleft().result(), progress)
                while waiting:
                    self._count(waiting.popleft().result(), progress)
            finally:
                for future in waiting:
                    future.cancel()
        progress.end()
        return ignored

    def _put(self, file: _Local) -> int | None:
        """The bytes that were uploaded; None where they were there already."""
        try:
            with open(file.place, "rb") as body:  # noqa: PTH123  any bytes may be in the path
                digest = hashlib.file_digest(body, lambda: hashlib.md5(usedforsecurity=False)).digest()
                size = body.tell()
                if self._there.get(file.blob) == digest:
                    return None
                body.seek(0)
                kind = mimetypes.guess_type(file.blob, strict=False)[0] or "application/octet-stream"
                settings = ContentSettings(content_type=kind, content_md5=bytearray(digest))
                self._container.upload_blob(
                    file.blob, body, length=size, overwrite=True, content_settings=settings, max_concurrency=1
                )
        except OSError as error:
            raise GlintError(f"DIR: {file.place} cannot be read: {error.strerror}") from None
        return size

    def _count(self, size: int | None, progress: Progress) -> None:
        if size is None:
            self.skipped += 1
        else:
            self.uploaded += 1
            self.num_bytes += size
        progress.update(self.uploaded + self.skipped, f"{self.num_bytes / 1e6:,.0f} MB" if self.num_bytes else "")


def _contents(container: ContainerClient, prefix: str, progress: Progress) -> tuple[dict[str, bytes], bool]:
    """The MD5 of each blob below the prefix that has one, and whether the container had to be made."""
    progress.begin("looking what is there", None, "blobs")
    there: dict[str, bytes] = {}
    try:
        below = partial(container.list_blobs, name_starts_with=prefix or None)
        first(lambda: next(below(results_per_page=1, **FIRST_REQUEST), None))
        for blob in below():
            if md5 := blob.content_settings.content_md5:
                there[blob.name] = bytes(md5)
    except ResourceNotFoundError as error:
        if refusal_of(error).code != "ContainerNotFound":
            raise
        try:
            container.create_container()
        except ResourceExistsError:
            return there, False  # somebody else was quicker
        return there, True
    finally:
        progress.end()
    return there, False


def _files(folder: str, prefix: str, ignored: Counter[str]) -> Iterator[_Local]:
    for entry in list_files(folder):
        place = local_path(entry.uri)
        if reason := _reason(entry, place):
            ignored[reason] += 1
        else:
            yield _Local(place, f"{prefix}{entry.path}")


def _reason(entry: Listed, place: str) -> str | None:
    """Why a file is not uploaded."""
    if entry.ignored == "hidden":
        return "hidden"
    if not os.path.isfile(place):  # noqa: PTH113
        return entry.ignored if entry.ignored and "link" in entry.ignored else "not a file"
    try:
        os.fsencode(place).decode()
    except UnicodeDecodeError:
        return "name that is not UTF-8"
    return None if addressable(entry.path) else "name with control characters"
