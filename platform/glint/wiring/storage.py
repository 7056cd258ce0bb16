"""Where images, outcomes and models lie, by the settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from glint.core.errors import GlintError
from glint.settings import Settings, quieten

if TYPE_CHECKING:
    from glint.adapters.blob_account import BlobAccount
    from glint.adapters.cosmos_client import CosmosAddress
    from glint.adapters.images import Images
    from glint.adapters.registry import Registry
    from glint.core.stores import ResultStore


def open_images(settings: Settings) -> Images:
    """The reader of image addresses."""
    from glint.adapters.images import Images

    return Images(
        account=settings.blob_account,
        endpoint=settings.blob_endpoint,
        credentials=blob_credentials,
        read_threads=settings.read_threads,
        max_bytes=settings.max_bytes,
    )


def blob_credentials() -> dict[str, str]:
    """The storage account's secrets, from the environment of the machine that reads images."""
    settings = Settings()
    secrets = {"account_key": settings.blob_key, "sas_key": settings.blob_sas}
    return {name: secret.get_secret_value() for name, secret in secrets.items() if secret}


def open_blob_account(settings: Settings) -> BlobAccount:
    """The storage account that uploads go to."""
    from glint.adapters.blob_account import BlobAccount

    if not settings.blob_account:
        raise GlintError("az:// needs a storage account: set GLINT_BLOB_ACCOUNT to its name")
    return BlobAccount(settings.blob_account, settings.blob_endpoint, blob_credentials)


def open_store(settings: Settings) -> ResultStore:
    """The result store that `GLINT_STORE` names."""
    if settings.store_uri.startswith("cosmos://"):
        return _cosmos_store(settings)
    scheme, _, path = settings.store_uri.partition(":///")
    if scheme != "sqlite" or not path:
        raise GlintError(f"GLINT_STORE {settings.store_uri!r} must be sqlite:///PATH or cosmos://ACCOUNT/DATABASE")
    from glint.adapters.sqlite_store import SqliteStore

    return SqliteStore(Path(path).absolute())


def check_store_answers(settings: Settings) -> str | None:
    """Open the result store and read a little: raises GlintError, within seconds, that names the setting to change.

    Returns what a person should know about it before a job writes.
    """
    from glint.core.stores import Bridge

    store, bridge = open_store(settings), Bridge()
    try:
        bridge.run(store.jobs(limit=1))
        return bridge.run(_guessed_budget(settings, store))
    finally:
        bridge.run(store.close())
        bridge.close()


async def _guessed_budget(settings: Settings, store: ResultStore) -> str | None:
    """How much jobs write where nobody knows how much the database takes."""
    if settings.cosmos_ru or not settings.store_uri.startswith("cosmos://"):
        return None
    from glint.adapters.cosmos_budget import DEFAULT_RU, WRITERS_SHARE
    from glint.adapters.cosmos_store import CosmosStore

    assert isinstance(store, CosmosStore)
    if await store.database_ru() is not None:
        return None
    return (
        "GLINT_COSMOS_RU is not set and the account does not say how many RU/s the database has: jobs together write "
        f"with {DEFAULT_RU * WRITERS_SHARE:,.0f} at most, {WRITERS_SHARE:.0%} of {DEFAULT_RU:,}"
    )


def _cosmos_store(settings: Settings) -> ResultStore:
    from glint.adapters.cosmos_store import CosmosStore, WriteLimits

    limits = WriteLimits(settings.cosmos_ru, settings.store_deadline_s)
    return CosmosStore(cosmos_address(settings), settings.home_path / "dead-letters", limits)


def cosmos_address(settings: Settings) -> CosmosAddress:
    """Where the database of `GLINT_STORE` lies; raises GlintError when that is no cosmos:// address."""
    from glint.adapters.cosmos_client import CosmosAddress, parse_address

    account, database = parse_address(settings.store_uri)
    return CosmosAddress(account, database, settings.cosmos_endpoint, cosmos_key, settings.cosmos_proxy)


def cosmos_key() -> str | None:
    """The account's key, from the environment of the machine that uses it; None = Entra ID."""
    key = Settings().cosmos_key
    return key.get_secret_value() if key else None


def open_registry(settings: Settings) -> Registry:
    """The MLflow server that `GLINT_MLFLOW_URI` names."""
    quieten(settings)
    from glint.adapters.registry import Registry

    return Registry(settings.tracking_uri, settings.home_path)
