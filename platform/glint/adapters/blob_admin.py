"""What the Azure SDK does for a storage account: containers made, folders uploaded, links to one blob."""

from __future__ import annotations

import hashlib
import mimetypes
import os
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple, TypeVar

from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
    ServiceRequestError,
    ServiceResponseTimeoutError,
)
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import (
    BlobSasPermissions,
    BlobServiceClient,
    ContainerClient,
    ContentSettings,
    generate_blob_sas,
)
from pydantic import BaseModel, Field
from requests import Session
from requests.adapters import HTTPAdapter

from glint.adapters.blob_account import BlobAccount, Refusal, addressable, container_and_key
from glint.adapters.files import Listed, list_files, local_path
from glint.core.errors import GlintError
from glint.core.progress import Progress, Silent

T = TypeVar("T")

NUM_THREADS = 16
MAX_LINK_S = 900
CLOCK_SKEW = timedelta(minutes=5)
"""How far a link begins in the past, for clocks that differ."""
DELEGATOR = "the identity needs the role Storage Blob Delegator, or Storage Blob Data Reader, for the whole account"
SILENT = Silent()

TIMEOUTS: dict[str, Any] = {"connection_timeout": 3, "read_timeout": 60}
RETRIES: dict[str, Any] = {"initial_backoff": 0.2, "increment_base": 1, "retry_total": 5}
"""Of the SDK, whose own would wait 15 s after one 503."""
FIRST_REQUEST: dict[str, Any] = {"read_timeout": 5, "retry_total": 0}
FIRST_PATIENCE_S = 3.0
"""For so long the first request is made again: an account that is not there, or never answers, is said soon."""
FIRST_PAUSE_S = 0.3


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


def open_service(account: BlobAccount, num_connections: int = NUM_THREADS) -> BlobServiceClient:
    """The account by the Azure SDK; connects with the first request."""
    signed = account.sign_in()
    credential: Any
    if signed.how == "key":
        credential = AzureNamedKeyCredential(account.name, signed.secret)
    elif signed.how == "sas":
        credential = AzureSasCredential(signed.secret)
    else:
        credential = account.identity()
    return _service(account, credential, num_connections)


def _service(account: BlobAccount, credential: Any, num_connections: int) -> BlobServiceClient:
    session = Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=num_connections))
    return BlobServiceClient(
        account.url, credential, transport=RequestsTransport(session=session, **TIMEOUTS), **RETRIES
    )


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


def link(account: BlobAccount, uri: str, seconds: int = MAX_LINK_S) -> str:
    """An https address that anyone may read this one blob by, for at most 15 minutes.

    Signed on behalf of an identity of Entra ID (a user delegation SAS), whatever opens the account otherwise: a link
    that the account key signed could only be withdrawn by changing the key. An emulator over http knows no identity,
    and takes the key. Raises GlintError for a longer time, and where there is no identity.
    """
    if not 0 < seconds <= MAX_LINK_S:
        raise GlintError(f"a link lasts 1 to {MAX_LINK_S} seconds, got {seconds}")
    container, key = container_and_key(uri)
    now = datetime.now(UTC)
    start, expiry = now - CLOCK_SKEW, now + timedelta(seconds=seconds)
    signing = _signing(account, uri, start, expiry)
    reading = BlobSasPermissions(read=True)
    token = generate_blob_sas(account.name, container, key, permission=reading, start=start, expiry=expiry, **signing)
    with ContainerClient(account.url, container) as client:
        return f"{client.get_blob_client(key).url}?{token}"


def _signing(account: BlobAccount, uri: str, start: datetime, expiry: datetime) -> dict[str, Any]:
    """What signs a link."""
    if account.url.startswith("http://"):
        if (signed := account.sign_in()).how != "key":
            raise GlintError(f"a link to {account.url}, which is not https, must be signed with GLINT_BLOB_KEY")
        return {"account_key": signed.secret}
    try:
        identity = account.identity()
    except GlintError:
        raise GlintError(
            f"{uri}: no link to it: an Azure identity has to sign it, and there is none; run `az login`, or give this "
            "machine a workload or managed identity"
        ) from None
    with _service(account, identity, num_connections=1) as service:
        try:
            key = _first(lambda: service.get_user_delegation_key(start, expiry, **FIRST_REQUEST))
        except AzureError as error:
            refusal = refusal_of(error)
            line = DELEGATOR if refusal.status in (401, 403) else account.explain(refusal, container_and_key(uri)[0])
            raise GlintError(f"{uri}: no link to it: {line}") from None
    return {"user_delegation_key": key}


def refusal_of(error: AzureError) -> Refusal:
    """What an error of the SDK tells."""
    if isinstance(error, HttpResponseError) and error.status_code:
        code = getattr(error, "error_code", "") or ""
        return Refusal(error.status_code, str(getattr(code, "value", code)))
    if isinstance(error, ClientAuthenticationError):
        return Refusal(401)
    text = str(error)
    if isinstance(error, ServiceResponseTimeoutError):
        seconds = re.search(r"read timeout=(\d+)", text)
        return Refusal(detail="it took the connection and sent nothing" + (f" for {seconds[1]} s" if seconds else ""))
    if not isinstance(error, ServiceRequestError):
        return Refusal(detail="the answer broke off")
    if "resolve" in text:
        return Refusal(detail="no such host", reached=False)
    return Refusal(detail="connection refused" if "refused" in text else "no connection", reached=False)


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
        _first(lambda: next(below(results_per_page=1, **FIRST_REQUEST), None))
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


def _first(request: Callable[[], T]) -> T:
    """The first request to an account, made again for a few seconds where that may help."""
    started = time.monotonic()
    while True:
        try:
            return request()
        except AzureError as error:
            if not refusal_of(error).transient or time.monotonic() - started > FIRST_PATIENCE_S:
                raise
        time.sleep(FIRST_PAUSE_S)


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
