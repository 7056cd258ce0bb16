"""What the Azure SDK does for a storage account: its client, what its errors mean, and links to one blob."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestError,
    ServiceResponseTimeoutError,
)
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import (
    BlobSasPermissions,
    BlobServiceClient,
    ContainerClient,
    generate_blob_sas,
)
from requests import Session
from requests.adapters import HTTPAdapter

from glint.adapters.blob_account import BlobAccount, Refusal, container_and_key
from glint.core.errors import GlintError

T = TypeVar("T")

NUM_THREADS = 16
MAX_LINK_S = 900
CLOCK_SKEW = timedelta(minutes=5)
"""How far a link begins in the past, for clocks that differ."""
DELEGATOR = "the identity needs the role Storage Blob Delegator, or Storage Blob Data Reader, for the whole account"

TIMEOUTS: dict[str, Any] = {"connection_timeout": 3, "read_timeout": 60}
RETRIES: dict[str, Any] = {"initial_backoff": 0.2, "increment_base": 1, "retry_total": 5}
"""Of the SDK, whose own would wait 15 s after one 503."""
FIRST_REQUEST: dict[str, Any] = {"read_timeout": 5, "retry_total": 0}
FIRST_PATIENCE_S = 3.0
"""For so long the first request is made again: an account that is not there, or never answers, is said soon."""
FIRST_PAUSE_S = 0.3


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
            key = first(lambda: service.get_user_delegation_key(start, expiry, **FIRST_REQUEST))
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


def first(request: Callable[[], T]) -> T:
    """The first request to an account, made again for a few seconds where that may help."""
    started = time.monotonic()
    while True:
        try:
            return request()
        except AzureError as error:
            if not refusal_of(error).transient or time.monotonic() - started > FIRST_PATIENCE_S:
                raise
        time.sleep(FIRST_PAUSE_S)
