"""Makes the database and its containers: the one thing that needs the right to do so."""

from __future__ import annotations

from azure.cosmos import PartitionKey, ThroughputProperties
from azure.cosmos.aio import CosmosClient

from glint.adapters.cosmos_client import CosmosAddress, connect, explained
from glint.adapters.cosmos_schema import INDEXED, indexing_policy

MAX_RU = 4000
"""RU/s of a new database unless more are asked for: the smallest autoscale maximum that is common."""
NO_TTL = -1
"""Documents live for ever, but for those that carry a time to live of their own."""


async def create_schema(address: CosmosAddress, max_ru: int | None, autoscale: bool = True) -> list[str]:
    """Make what is missing of database and containers; returns the names of the containers.

    `max_ru` RU/s are shared by the containers of a new database, None for a serverless account; what exists keeps what
    it has. Raises GlintError where the account refuses or does not answer.
    """
    with explained(address):
        async with connect(address) as client:
            return await _create(client, address.database, _throughput(max_ru, autoscale))


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


def _throughput(max_ru: int | None, autoscale: bool) -> ThroughputProperties | int | None:
    if max_ru is None or not autoscale:
        return max_ru
    return ThroughputProperties(auto_scale_max_throughput=max_ru)
