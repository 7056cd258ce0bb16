"""Blobs by obstore, read only as the etag that was listed; blob_listing.py lists them."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import obstore
from obstore.exceptions import (
    BaseError,
    GenericError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import AzureStore

from glint.adapters.blob_account import BlobAccount, Refusal, addressable
from glint.adapters.files import changed, check_size
from glint.core.errors import GlintError, ImageError

if TYPE_CHECKING:
    from obstore import GetOptions

MAX_WAIT_S = 5.0
READ_ATTEMPTS = 4
"""For bodies that break off; obstore has asked for the rest of each by then."""
UNREADABLE = "name with empty parts or control characters"

BACKOFF: Any = {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=3), "base": 2}
READ_RETRIES: Any = {"max_retries": 12, "retry_timeout": timedelta(seconds=30), "backoff": BACKOFF}
PROBE_RETRIES: Any = {"max_retries": 3, "retry_timeout": timedelta(seconds=2), "backoff": BACKOFF}
READ_TIMEOUTS = {"connect_timeout": "5s", "timeout": "60s"}
LIST_TIMEOUTS = {"connect_timeout": "3s", "timeout": "30s"}
FIRST_TIMEOUTS = LIST_TIMEOUTS | {"read_timeout": "5s"}
"""Of the first request to an account: who takes the connection and never answers is given up soon."""
ANSWERED = frozenset({404, 409, 412, 416})
"""What becomes of one blob alone: the account has let the request in."""


class Blob(NamedTuple):
    """A blob as a listing gives it."""

    name: str
    etag: str | None
    size: int


def open_reader(account: BlobAccount, container: str) -> AzureStore:
    """A container to read from: patient, for a long job should outlive a short outage."""
    return open_store(account, container, READ_RETRIES, READ_TIMEOUTS)


def read_blob(
    store: AzureStore, uri: str, key: str, etag: str | None, max_bytes: int | None, part: tuple[int, int] | None = None
) -> bytes:
    """All bytes of a blob, or those from one place up to another; with an etag, only if it still has it.

    Raises ImageError.
    """
    if not addressable(key):
        raise ImageError("failed", "unreadable_name", f"{uri} cannot be read: {UNREADABLE}")
    for attempt in range(READ_ATTEMPTS):
        if attempt:
            time.sleep(wait_s(attempt))
        try:
            with _explained(store, uri, key):
                return _whole(store, uri, key, etag, max_bytes, part)
        except _BrokenOff:
            continue
    raise ImageError("failed", "broken_off", f"{uri} cannot be read: {READ_ATTEMPTS} times its bytes broke off")


def find_blob(store: AzureStore, uri: str, key: str) -> Blob:
    """A blob's etag and size as they are now; raises ImageError as reading does."""
    if not addressable(key):
        raise ImageError("failed", "unreadable_name", f"{uri} cannot be read: {UNREADABLE}")
    with _explained(store, uri, key):
        found = obstore.head(store, key)
        return Blob(key, (found["e_tag"] or "").strip('"') or None, found["size"])


@contextmanager
def _explained(store: AzureStore, uri: str, key: str) -> Iterator[None]:
    """Refusals of obstore as ImageError."""
    try:
        yield
    except FileNotFoundError:
        raise _missing(uri) from None
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise ImageError("denied", "permission", f"{uri} may not be read: {_line(error)}") from None
    except PreconditionError:
        raise _gone_or_changed(store, uri, key) from None
    except BaseError as error:
        raise ImageError("failed", "read_error", f"{uri} cannot be read: {_line(error)}") from None


def _gone_or_changed(store: AzureStore, uri: str, key: str) -> ImageError:
    """A server may say of a blob that is gone, too, that its etag is not the one asked for."""
    try:
        obstore.head(store, key)
    except FileNotFoundError:
        return _missing(uri)
    except BaseError:
        pass  # whatever it is now, it is not what was listed
    return changed(uri)


def _missing(uri: str) -> ImageError:
    return ImageError("missing", "not_found", f"{uri} does not exist")


def check_readable(account: BlobAccount, container: str, key: str) -> None:
    """Ask for a blob, not for its bytes: whoever reads it, or learns that it is gone, has the right settings.

    A refusal may be of that blob alone, so the container's listing is asked too before the account is blamed. Raises
    GlintError that names the setting, or the container that does not exist, within seconds.
    """
    store = open_store(account, container, PROBE_RETRIES, FIRST_TIMEOUTS)
    refusal = _asked(lambda: obstore.get(store, key))
    alone = refusal is None or (refusal.status in ANSWERED and refusal.code != "ContainerNotFound")
    if refusal and (refusal.status in (401, 403) or refusal.code == "ResourceNotFound"):
        listed = _asked(lambda: next(iter(obstore.list(store, chunk_size=1)), None))
        alone, refusal = listed is None, listed
    if refusal and not alone:
        raise GlintError(f"az://{container} cannot be read: {account.explain(refusal, container)}")


def _asked(ask: Callable[[], object]) -> Refusal | None:
    try:
        ask()
    except (BaseError, FileNotFoundError) as error:
        return refusal_in(error)
    return None


class _BrokenOff(Exception):  # noqa: N818 - it may be asked for again
    pass


def _whole(
    store: AzureStore, uri: str, key: str, etag: str | None, max_bytes: int | None, part: tuple[int, int] | None
) -> bytes:
    # Azure's listing gives an etag bare; a condition of HTTP has it in quotes.
    options: GetOptions = {"if_match": f'"{etag}"'} if etag else {}
    found = obstore.get(store, key, options=options | {"range": part} if part else options)
    size = part[1] - part[0] if part else found.meta["size"]
    check_size(uri, size, max_bytes)
    try:
        data = bytes(found.bytes())
    except GenericError:
        raise _BrokenOff from None
    if len(data) != size:
        raise _BrokenOff
    return data


def open_store(account: BlobAccount, container: str, retries: Any, timeouts: dict[str, str]) -> AzureStore:
    """A container as obstore opens it, with the account's credential; GlintError where the settings make no account."""
    config: Any = {
        "account_name": account.name,
        "endpoint": account.url,
        # glint's own settings alone count, not AZURE_* variables that are meant for something else.
        "use_emulator": False,
        "skip_signature": False,
    }
    options: Any = {"allow_http": account.url.startswith("http://"), **timeouts}
    signed = account.sign_in()
    provider = None
    if signed.how == "identity":
        from obstore.auth.azure import AzureCredentialProvider

        provider = AzureCredentialProvider(account.identity())
    elif signed.how == "key":
        config |= {"account_key": signed.secret, "credential_type": "access_key"}
    else:
        config |= {"sas_key": signed.secret, "credential_type": "sas_token"}
    try:
        return AzureStore(
            container, config=config, client_options=options, retry_config=retries, credential_provider=provider
        )
    except BaseError as error:
        raise GlintError(f"az://{container}: GLINT_BLOB_* do not make an account: {_line(error)}") from None


def refusal_in(error: Exception) -> Refusal:
    """What obstore's message tells: it has no fields for the server's answer."""
    text = str(error)
    if status := re.search(r"status code: (\d{3})", text):
        code = re.search(r"<Code>(\w+)</Code>", text)
        return Refusal(int(status[1]), code[1] if code else "")
    if "InvalidListResponse" in text or "Received redirect" in text or "Header missing" in text:
        return Refusal(200)
    if "External Azure credential provider" in text:
        return Refusal(401)
    if "kind: Timeout" in text:
        return Refusal(detail="timed out", reached=False)
    if "kind: Connect,\n" not in text:
        return Refusal(detail="the answer broke off")
    if "dns error" in text:
        return Refusal(detail="no such host", reached=False)
    return Refusal(detail="connection refused" if "ConnectionRefused" in text else "no connection", reached=False)


def wait_s(failures: int) -> float:
    """Doubling from 0.2 s, with jitter, so that many readers do not come back at once."""
    return random.uniform(0.5, 1.0) * min(0.1 * 2.0**failures, MAX_WAIT_S)


def _line(error: Exception) -> str:
    """The first line of obstore's message, without the server's XML and the debugging text. obstore redacts a SAS."""
    return str(error).strip().partition("\n")[0].partition(": <?xml")[0]
