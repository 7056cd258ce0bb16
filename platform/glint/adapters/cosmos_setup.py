"""Makes the database and its containers: the one thing that needs the right to do so."""

from __future__ import annotations

from azure.cosmos import PartitionKey, ThroughputProperties
from azure.cosmos.aio import CosmosClient
from azure.cosmos.exceptions import CosmosHttpResponseError

from glint.adapters.cosmos_client import CosmosAddress, connect, explained, reason
from glint.adapters.cosmos_schema import INDEXED, indexing_policy
from glint.core.errors import GlintError

MAX_RU = 4000
"""RU/s of a new database unless more are asked for: the smallest autoscale maximum that is common."""
NO_TTL = -1
"""Documents live for ever, but for those that carry a time to live of their own."""


AUTOSCALE_STEP, MANUAL_STEP, MANUAL_MIN = 1000, 100, 400
"""Which throughput the service accepts: autoscale from one step up, manual from its minimum up."""


async def create_schema(address: CosmosAddress, max_ru: int | None, autoscale: bool = True) -> list[str]:
    """Make what is missing of database and containers; returns the names of the containers.

    `max_ru` RU/s are shared by the containers of a new database, None for a serverless account; what exists keeps what
    it has. Raises GlintError where the account refuses or does not answer.
    """
    throughput = _throughput(max_ru, autoscale)
    with explained(address):
        async with connect(address) as client:
            try:
                return await _create(client, address.database, throughput)
            except CosmosHttpResponseError as error:
                if line := _refused(error, address, max_ru, autoscale):
                    raise GlintError(f"GLINT_STORE {address.uri} cannot be made: {line}") from None
                raise


async def _create(client: CosmosClient, name: str, throughput: ThroughputProperties | int | None) -> list[str]:
    database = await client.create_database_if_not_exists(name, offer_throughput=throughput)
    for container in INDEXED:
        await database.create_container_if_not_exists(
            container,
            partition_key=PartitionKey("/pk"),
            indexing_policy=indexing_policy(container),
            default_ttl=NO_TTL,
        )
    return list(INDEXED)


def _refused(error: CosmosHttpResponseError, address: CosmosAddress, max_ru: int | None, autoscale: bool) -> str | None:
    """What to change where the account answers that it will not make that."""
    if error.status_code == 400:
        asked = "--serverless" if max_ru is None else f"--max-ru {max_ru}{'' if autoscale else ' --no-autoscale'}"
        return (
            f"the account refuses what {asked} asks for ({reason(error)}); --max-ru and --no-autoscale choose the "
            "throughput, --serverless is for accounts without one"
        )
    if error.status_code == 403 and address.key() is None:
        return (
            f"no identity may do that, whatever its role on the data ({reason(error)}); set GLINT_COSMOS_KEY, or have "
            "somebody with the role Cosmos DB Operator make it (docs/store.md says how)"
        )
    return None


def _throughput(max_ru: int | None, autoscale: bool) -> ThroughputProperties | int | None:
    """Raises GlintError for what no account accepts."""
    if max_ru is None:
        return None
    least, step = (AUTOSCALE_STEP, AUTOSCALE_STEP) if autoscale else (MANUAL_MIN, MANUAL_STEP)
    if max_ru < least or max_ru % step:
        how = "autoscale (--no-autoscale takes 400 and more, in hundreds)" if autoscale else "--no-autoscale"
        raise GlintError(f"--max-ru {max_ru} must be {least} or more, in steps of {step}, with {how}")
    return ThroughputProperties(auto_scale_max_throughput=max_ru) if autoscale else max_ru
