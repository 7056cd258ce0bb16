"""A connection to Azure Cosmos DB: opened with the settings that this load needs, its failures named in one line."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientSession, DummyCookieJar, TCPConnector
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    DecodeError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.core.pipeline.transport import AioHttpTransport
from azure.cosmos.aio import CosmosClient
from azure.cosmos.exceptions import CosmosBatchOperationError, CosmosHttpResponseError

from glint.adapters import names
from glint.adapters.authority import authority_options
from glint.core.errors import GlintError, StoreError

OPEN_TIMEOUT_S = 6.0
MAX_CONNECTIONS = 32
NOT_FOUND = 404
NO_ACCOUNT = frozenset({302, 400, NOT_FOUND})
"""What other servers say where Cosmos DB describes an account."""
TOO_LARGE = 413
TOO_MANY = 429
THROTTLED = frozenset({TOO_MANY, 449})
"""The service is there and asks to come back later."""
TRANSIENT = frozenset({408, 410, 429, 449, 500, 502, 503, 504})


class UnreachableError(StoreError):
    """The account does not answer now, or asks to come back later, in `retry_after_s` at the earliest."""

    def __init__(self, line: str, throttled: bool = False, retry_after_s: float = 0.0) -> None:
        super().__init__(line)
        self.throttled = throttled
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class CosmosAddress:
    """Where a database lies: cosmos://ACCOUNT/DATABASE, and how to get there.

    `endpoint` is that of another cloud or an emulator. `key`, a function of some module, finds the account key on the
    machine that uses it, and None there means Entra ID.
    """

    account: str
    database: str
    endpoint: str | None
    key: Callable[[], str | None]
    use_proxy: bool = False

    @property
    def url(self) -> str:
        """The account's endpoint; raises StoreError for one that is none."""
        if self.endpoint is None:
            return f"https://{self.account}.documents.azure.com:443/"
        if not re.fullmatch(r"https?://([\w.-]+|\[[\da-fA-F:]+\])(:\d{1,5})?/?", self.endpoint):
            shown = re.split("[;?]", self.endpoint)[0]  # without the key of a connection string
            raise StoreError(f"GLINT_COSMOS_ENDPOINT {shown!r} must be https://HOST[:PORT]")
        return self.endpoint

    def credential(self) -> str | None:
        """The account key, None for Entra ID; raises StoreError for what cannot be a key, or no identity sign in with.

        The SDK would look at the key only when it signs, and let the decoder's own error out.
        """
        key = (self.key() or "").strip()
        if not key:
            if self.url.startswith("http://"):
                raise StoreError(
                    f"GLINT_COSMOS_ENDPOINT {self.url} is not https, where an identity could sign in: set "
                    "GLINT_COSMOS_KEY"
                )
            return None
        try:
            base64.b64decode(key, validate=True)
        except ValueError:  # binascii.Error, and what is not ASCII
            raise StoreError("GLINT_COSMOS_KEY is not the key of an account: it is not base64") from None
        return key

    @property
    def uri(self) -> str:
        """The address as GLINT_STORE has it."""
        return f"cosmos://{self.account}/{self.database}"


def parse_address(uri: str) -> tuple[str, str]:
    """Account and database of cosmos://ACCOUNT/DATABASE; raises StoreError for anything else."""
    account, _, database = uri.removeprefix("cosmos://").partition("/")
    if not uri.startswith("cosmos://") or not account or not database or set(database) & set("/\\?#"):
        raise StoreError(f"GLINT_STORE {uri!r} must be cosmos://ACCOUNT/DATABASE")
    return account, database


@asynccontextmanager
async def connect(
    address: CosmosAddress, response_hook: Callable[[Any], None] | None = None
) -> AsyncIterator[CosmosClient]:
    """A client on this event loop. Raises what `explained` makes of a failure."""
    if not address.use_proxy:
        with explained(address):
            await _look_up(address.url)
    async with AsyncExitStack() as stack:
        credential: Any = address.credential()
        if credential is None:
            from azure.identity.aio import DefaultAzureCredential

            logging.getLogger("azure.identity").setLevel(logging.ERROR)  # it tells each way that it tried
            credential = await stack.enter_async_context(DefaultAzureCredential(**authority_options(address.url)))
        # Azure's own session would look the proxy up in the environment at each request, for half of all CPU time.
        session = await stack.enter_async_context(
            ClientSession(
                connector=TCPConnector(limit=MAX_CONNECTIONS),
                trust_env=address.use_proxy,
                cookie_jar=DummyCookieJar(),
                auto_decompress=False,
            )
        )
        client = CosmosClient(
            address.url,
            credential,
            transport=AioHttpTransport(session=session, session_owner=False),
            no_response_on_write=True,
            enable_compact_utf8_item_writes=True,
            connection_timeout=5,
            read_timeout=10,
            # Retrying is the store's: with jitter, a limiter and a deadline. 0 would mean the default, 9.
            retry_throttle_total=1,
            raw_response_hook=response_hook,
        )
        with explained(address):
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                await _enter(stack, client, address)
        yield client


async def _enter(stack: AsyncExitStack, client: CosmosClient, address: CosmosAddress) -> None:
    """Read the account's description, which the SDK takes from whatever answers; raises StoreError where it is none."""
    try:
        await stack.enter_async_context(client)
    except (AttributeError, DecodeError, CosmosHttpResponseError) as error:
        if isinstance(error, AttributeError | DecodeError) or status_of(error) in NO_ACCOUNT:
            raise StoreError(f"what answers at {address.url} is no Cosmos DB; {_what_to_check(address)}") from None
        raise


async def _look_up(url: str) -> None:
    """Raise OSError for an unknown host, TimeoutError where the name server is silent."""
    try:
        await asyncio.wait_for(asyncio.wrap_future(names.look_up(url)), names.NAME_TIMEOUT_S)
    except TimeoutError:
        raise TimeoutError(names.NO_NAME_SERVER) from None


class explained:  # noqa: N801 - it is used like a function
    """Turns what the service and the network are to blame for into one line that names the setting to change."""

    def __init__(self, address: CosmosAddress) -> None:
        self._address = address

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Raise StoreError in place of an error that it can name; UnreachableError of one that may pass."""
        if error is None or isinstance(error, GlintError):
            return
        named = explain(error, self._address)
        if named is not None:
            raise named from None


def explain(error: BaseException, address: CosmosAddress) -> StoreError | None:
    """The one line that says what to change, or None for an error that is no fault of account or network."""
    where = f"GLINT_STORE {address.uri}"
    status = status_of(error)
    if isinstance(error, ClientAuthenticationError) and address.key() is None:
        return StoreError(
            f"{where}: no Azure identity opens the account; sign in (az login, a workload or managed identity) or set "
            "GLINT_COSMOS_KEY"
        )
    if status == 401 or isinstance(error, ClientAuthenticationError):
        return StoreError(
            f"{where}: the account refuses the credential; check GLINT_COSMOS_KEY, or unset it for Entra ID"
        )
    if status == 403:
        return StoreError(f"{where}: {_forbidden(error, address)}")
    if status == NOT_FOUND:
        return StoreError(f"{where}: the account has no such database or container; glint store init makes them")
    if status in THROTTLED:
        more = "; raise the database's RU/s, or set GLINT_COSMOS_RU to what they are, so that jobs leave readers some"
        return UnreachableError(
            f"{where}: the account is busy and asks to come back later (status {status})"
            + (more if status == TOO_MANY else ""),
            throttled=True,
            retry_after_s=retry_after_s(error),
        )
    if is_transient(error):
        return UnreachableError(
            f"{where}: {address.url} does not answer ({_brief(error)}); {_what_to_check(address)}",
            retry_after_s=retry_after_s(error),
        )
    return None


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed later."""
    if isinstance(error, UnreachableError | TimeoutError | ServiceRequestError | ServiceResponseError | OSError):
        return True
    status = status_of(error)
    if status is None:
        # Answers that broke off half-way have no status either.
        return isinstance(error, AzureError) and not isinstance(error, ClientAuthenticationError)
    return status in TRANSIENT


def status_of(error: BaseException) -> int | None:
    """The HTTP status with which the service refused, if it answered at all."""
    if isinstance(error, CosmosHttpResponseError | CosmosBatchOperationError):
        return error.status_code
    return None


def retry_after_s(error: BaseException) -> float:
    """How long the service asks to wait, 0 where it does not say."""
    said = getattr(error, "headers", None) or {}
    try:
        return max(float(said.get("x-ms-retry-after-ms", 0)) / 1000, 0.0)
    except ValueError:
        return 0.0


def reason(error: CosmosHttpResponseError) -> str:
    """Why the service refused, in its own words, without what it says for its own people."""
    said = str(error.http_error_message or "")
    with suppress(ValueError, TypeError, KeyError):  # it need not be JSON
        said = str(json.loads(said)["message"])
    if listed := re.search(r'"Errors":\s*\[(.*?)\]', said, re.DOTALL):
        said = ", ".join(re.findall(r'"((?:[^"\\]|\\.)*)"', listed[1])) or said
    said = re.split(r"\s*,?\s*(?:ActivityId|RequestStartTime|Request URI|Learn more)\b", said)[0]
    return " ".join(said.removeprefix("Message: ").split())[:300] or f"status {error.status_code}"


def _forbidden(error: BaseException, address: CosmosAddress) -> str:
    said = reason(error) if isinstance(error, CosmosHttpResponseError) else "status 403"
    if address.key() is None:
        return (
            f"this identity may not do that ({said}); give it the role Cosmos DB Built-in Data Contributor, or set "
            "GLINT_COSMOS_KEY"
        )
    return f"the account forbids it ({said}); check its firewall, and that GLINT_COSMOS_KEY may write"


def _what_to_check(address: CosmosAddress) -> str:
    return "check GLINT_COSMOS_ENDPOINT" if address.endpoint else "check the account's name and the network"


def _brief(error: BaseException) -> str:
    status = status_of(error)
    return f"status {status}" if status else str(error).partition("\n")[0][:120] or "timeout"
