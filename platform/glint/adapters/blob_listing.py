"""Blobs of a container listed in a stream that survives faults, by obstore or, where that cannot, by the Azure SDK."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import chain
from typing import Any

import obstore
from obstore.exceptions import BaseError, InvalidPathError

from glint.adapters.blob_account import BlobAccount, Refusal
from glint.adapters.blobs import BACKOFF, FIRST_TIMEOUTS, LIST_TIMEOUTS, Blob, open_store, refusal_in, wait_s
from glint.core.errors import GlintError

LIST_CHUNK = 1000
FIRST_PATIENCE_S = 4.0
"""For so long a listing is tried again before its first name is seen: an account that is not there is said soon."""
PATIENCE_S = 60.0
"""And for so long behind the last name."""
LIST_RETRIES: Any = {"max_retries": 6, "retry_timeout": timedelta(seconds=4), "backoff": BACKOFF}

Lister = Callable[[str | None], Iterator[Blob]]
"""Lists what comes after a name; a server may ignore that and begin at the first one."""


class InterruptedListingError(GlintError):
    """The account does not let a listing go on; what was listed stands."""


def list_blobs(
    account: BlobAccount, container: str, prefix: str, source: str, seen: tuple[str, str] | None = None
) -> Iterator[Blob]:
    """Every blob below a prefix, a page in memory at a time; with `seen`, a first and a last name, those behind.

    After a transient fault it goes on behind the last name. Where obstore cannot say a name, the Azure SDK, which is
    slower, lists from there on. Raises InterruptedListingError that names `source` and the setting to change, and
    GlintError where the last name is gone and the server cannot list from there.
    """
    lister: Lister = _ObstoreLister(account, container, prefix)
    first, last = seen or (None, None)
    reached, failures, since = False, 0, 0.0
    while True:
        try:
            for blob in _behind(lister(last), first, last, source):
                first, last, reached, failures = first or blob.name, blob.name, True, 0
                yield blob
            return
        except InvalidPathError:
            lister = _SdkLister(account, container, prefix)
        except _Interrupted as interrupted:
            refusal = interrupted.refusal
            since = since if failures else time.monotonic()
            failures += 1
            patient = time.monotonic() - since < (PATIENCE_S if reached else FIRST_PATIENCE_S)
            if not (refusal.transient and patient and (reached or refusal.reached)):
                reason = account.explain(refusal, container)
                raise InterruptedListingError(f"SOURCE {source} cannot be listed: {reason}") from None
            time.sleep(wait_s(failures))


class _Interrupted(Exception):  # noqa: N818 - it may go on
    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.detail)
        self.refusal = refusal


class _ObstoreLister:
    def __init__(self, account: BlobAccount, container: str, prefix: str) -> None:
        self._account = account
        self._container = container
        self._prefix = prefix or None

    def __call__(self, last: str | None) -> Iterator[Blob]:
        timeouts = FIRST_TIMEOUTS if last is None else LIST_TIMEOUTS
        store = open_store(self._account, self._container, LIST_RETRIES, timeouts)
        try:
            for chunk in obstore.list(store, self._prefix, offset=last, chunk_size=LIST_CHUNK):
                for blob in chunk:
                    yield Blob(blob["path"], (blob["e_tag"] or "").strip('"') or None, blob["size"])
        except InvalidPathError:
            raise
        except (BaseError, FileNotFoundError) as error:
            raise _Interrupted(refusal_in(error)) from None


class _SdkLister:
    def __init__(self, account: BlobAccount, container: str, prefix: str) -> None:
        from glint.adapters.blob_admin import open_service

        self._container = open_service(account).get_container_client(container)
        self._prefix = f"{prefix}/" if prefix else None

    def __call__(self, last: str | None) -> Iterator[Blob]:
        from azure.core.exceptions import AzureError

        from glint.adapters.blob_admin import refusal_of

        try:
            for blob in self._container.list_blobs(name_starts_with=self._prefix, results_per_page=5 * LIST_CHUNK):
                yield Blob(blob.name, blob.etag.strip('"'), blob.size)
        except AzureError as error:
            raise _Interrupted(refusal_of(error)) from None


def _behind(blobs: Iterator[Blob], first: str | None, last: str | None, source: str) -> Iterator[Blob]:
    """The blobs behind `last`, whether the server began there, as asked, or once more at `first`.

    By place, not by comparing names: accounts with a hierarchical namespace have an order of their own.
    """
    if first is None or last is None:
        yield from blobs
        return
    head = next(blobs, None)
    skipping = head is not None and (head.name == first or _precedes(head.name, last))
    for blob in chain([head] if head else [], blobs):
        if blob.name == last:
            skipping = False
        elif not skipping:
            yield blob
    if skipping:
        raise GlintError(f"SOURCE {source} changed while it was listed: {last} is gone; take the snapshot again")


def _precedes(name: str, other: str) -> bool:
    """Whether it comes earlier in either order: of a flat namespace, and of a hierarchical one, where / is lowest."""
    return name < other and name.replace("/", "\0") < other.replace("/", "\0")
