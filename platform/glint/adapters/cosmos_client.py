"""A connection to Azure Cosmos DB: opened with the settings that this load needs, its failures named in one line."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientSession, DummyCookieJar, TCPConnector
from azure.core.exceptions import AzureError, ClientAuthenticationError, ServiceRequestError, ServiceResponseError
from azure.core.pipeline.transport import AioHttpTransport
from azure.cosmos.aio import CosmosClient
from azure.cosmos.exceptions import CosmosBatchOperationError, CosmosHttpResponseError

from glint.core.errors import GlintError

OPEN_TIMEOUT_S = 8.0
MAX_CONNECTIONS = 32
NOT_FOUND = 404
TOO_LARGE = 413
TOO_MANY = 429
TRANSIENT = frozenset({408, 410, 429, 449, 500, 502, 503, 504})


class UnreachableError(GlintError):
    """The account does not answer now; it may again."""


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
        """The account's endpoint."""
        return self.endpoint or f"https://{self.account}.documents.azure.com:443/"

    @property
    def uri(self) -> str:
        """The address as GLINT_STORE has it."""
        return f"cosmos://{self.account}/{self.database}"


def parse_address(uri: str) -> tuple[str, str]:
    """Account and database of cosmos://ACCOUNT/DATABASE; raises GlintError for anything else."""
    account, _, database = uri.removeprefix("cosmos://").partition("/")
    if not uri.startswith("cosmos://") or not account or not database or set(database) & set("/\\?#"):
        raise GlintError(f"GLINT_STORE {uri!r} must be cosmos://ACCOUNT/DATABASE")
    return account, database


@asynccontextmanager
async def connect(
    address: CosmosAddress, response_hook: Callable[[Any], None] | None = None
) -> AsyncIterator[CosmosClient]:
    """A client on this event loop. Raises what `explained` makes of a failure."""
    async with AsyncExitStack() as stack:
        credential: Any = address.key()
        if credential is None:
            from azure.identity.aio import DefaultAzureCredential

            logging.getLogger("azure.identity").setLevel(logging.ERROR)  # it tells each way that it tried
            credential = await stack.enter_async_context(DefaultAzureCredential())
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
                await stack.enter_async_context(client)
        yield client


class explained:  # noqa: N801 - it is used like a function
    """Turns what the service and the network are to blame for into one line that names the setting to change."""

    def __init__(self, address: CosmosAddress) -> None:
        self._address = address

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Raise GlintError in place of an error that it can name; UnreachableError of one that may pass."""
        if error is None or isinstance(error, GlintError):
            return
        named = explain(error, self._address)
        if named is not None:
            raise named from None


def explain(error: BaseException, address: CosmosAddress) -> GlintError | None:
    """The one line that says what to change, or None for an error that is no fault of account or network."""
    where = f"GLINT_STORE {address.uri}"
    status = status_of(error)
    if isinstance(error, ClientAuthenticationError) and address.key() is None:
        return GlintError(
            f"{where}: no Azure identity opens the account; sign in (az login, a workload or managed identity) or set "
            "GLINT_COSMOS_KEY"
        )
    if status == 401 or isinstance(error, ClientAuthenticationError):
        return GlintError(
            f"{where}: the account refuses the credential; check GLINT_COSMOS_KEY, or unset it for Entra ID"
        )
    if status == 403:
        return GlintError(
            f"{where}: this identity may not do that; give it the role Cosmos DB Built-in Data Contributor, or set "
            "GLINT_COSMOS_KEY"
        )
    if status == NOT_FOUND:
        return GlintError(f"{where}: the account has no such database or container; glint store init makes them")
    if is_transient(error):
        return UnreachableError(f"{where}: {address.url} does not answer ({_reason(error)}); {_what_to_check(address)}")
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


def _what_to_check(address: CosmosAddress) -> str:
    return "check GLINT_COSMOS_ENDPOINT" if address.endpoint else "check the account's name and the network"


def _reason(error: BaseException) -> str:
    status = status_of(error)
    return f"status {status}" if status else str(error).partition("\n")[0][:120] or "timeout"
