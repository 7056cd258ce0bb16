"""A batch job from Blob Storage into Cosmos DB while both go wrong: one outcome for each image, or a reason to stop."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from azure.cosmos import CosmosClient
from azure.storage.blob import BlobServiceClient
from tests.faults import Policy, injected
from tests.pipelines.progress import Told

from glint.adapters.blob_account import BlobAccount
from glint.adapters.blob_upload import upload
from glint.adapters.cosmos_client import CosmosAddress
from glint.adapters.cosmos_schema import BOOKS, OUTCOMES
from glint.adapters.cosmos_setup import create_schema
from glint.adapters.cosmos_store import CosmosStore, WriteLimits
from glint.adapters.images import Images
from glint.core.errors import GlintError, StoreError
from glint.core.manifest import Manifest
from glint.core.stores import Bridge, ResultStore
from glint.core.submission import JobInput
from glint.emulators.faults import Asked, Fault
from glint.emulators.fidelity import CosmosProxy
from glint.emulators.proxy import Proxy
from glint.emulators.servers import Azurite
from glint.pipelines.batch import freeze_input, run_batch
from glint.pipelines.batch_run import BatchRun
from glint.pipelines.listing import open_input
from glint.settings import Settings

NUM_IMAGES = 280


@pytest.fixture(scope="module")
def container(azurite: Azurite, boards: Path) -> str:
    """The boards, uploaded."""
    name = f"boards-{uuid.uuid4().hex[:8]}"
    account = BlobAccount(azurite.account, azurite.endpoint, partial(dict, account_key=azurite.key))
    assert upload(account, str(boards), f"az://{name}").uploaded == NUM_IMAGES + 1
    return name


@pytest.fixture(scope="module")
def address(cosmos: CosmosProxy) -> CosmosAddress:
    address = CosmosAddress("localhost", f"jobs-{uuid.uuid4().hex[:8]}", cosmos.endpoint, partial(str, cosmos.key))
    asyncio.run(create_schema(address, 4000))
    return address


@pytest.fixture
def azure_batch(
    batch: BatchRun,
    container: str,
    address: CosmosAddress,
    azurite: Azurite,
    blob_proxy: Proxy,
    settings: Settings,
    tmp_path: Path,
) -> BatchRun:
    """A job of the trained model on the blobs, through both proxies."""
    endpoint = f"{blob_proxy.url}/{azurite.account}"
    images = Images(azurite.account, endpoint, partial(dict, account_key=azurite.key))
    source = f"az://{container}"
    return replace(
        batch,
        images=images,
        input=source,
        manifest=freeze_input(source, images, tmp_path, Told()),
        store=CosmosStore(address, tmp_path / "dead-letters", WriteLimits(deadline_s=60)),
        job=uuid.uuid4().hex,
        home=tmp_path,
    )


def outcomes(address: CosmosAddress, key: str, job: str) -> list[dict[str, Any]]:
    with CosmosClient(address.url, key) as client:
        container = client.get_database_client(address.database).get_container_client(OUTCOMES)
        query = "SELECT * FROM c WHERE c.job_id = @job AND c.kind = 'outcome'"
        parameters = [{"name": "@job", "value": job}]
        return list(container.query_items(query, parameters=parameters, enable_cross_partition_query=True))


def test_faults_on_both_sides_cost_no_outcome(
    azure_batch: BatchRun, address: CosmosAddress, cosmos: CosmosProxy, blob_proxy: Proxy
) -> None:
    blob = Policy(Fault.status(503), Fault.reset(), Fault.truncate(), share=0.2, operations={"get"})
    store = Policy(Fault.status(429, retry_after_ms=20), Fault.status(449), Fault.lost(), share=0.5)
    with injected(blob_proxy, blob), injected(cosmos, store):
        result = run_batch(azure_batch, Told())
    assert len(blob.made) > 20
    assert store.made
    assert result.statuses == {"ok": NUM_IMAGES - 2, "undecodable": 2}
    found = outcomes(address, cosmos.key, result.job)
    assert Counter(document["uri"] for document in found).most_common(1)[0][1] == 1
    assert len(found) == NUM_IMAGES
    again = run_batch(azure_batch, Told())
    assert (again.scored, again.statuses) == (0, result.statuses)


def test_images_changed_missing_or_denied_since_the_listing_are_outcomes(
    azure_batch: BatchRun,
    container: str,
    azurite: Azurite,
    cosmos: CosmosProxy,
    blob_proxy: Proxy,
    address: CosmosAddress,
) -> None:
    uris = azure_batch.manifest.table(["uri"])["uri"].to_pylist()
    changed, missing, denied = (uri.removeprefix(f"az://{container}/") for uri in uris[10:13])
    with BlobServiceClient(azurite.endpoint, azurite.key) as service:
        blobs = service.get_container_client(container)
        kept = {name: blobs.download_blob(name).readall() for name in (changed, missing)}
        blobs.upload_blob(changed, b"another picture", overwrite=True)
        blobs.delete_blob(missing)

        async def deny(asked: Asked) -> Fault | None:
            return Fault.status(403) if denied in asked.path else None

        try:
            with injected(blob_proxy, deny):
                result = run_batch(azure_batch, Told())
        finally:
            for name, data in kept.items():
                blobs.upload_blob(name, data, overwrite=True)
    statuses = {document["uri"]: document["status"] for document in outcomes(address, cosmos.key, result.job)}
    assert [statuses[uri] for uri in uris[10:13]] == ["changed", "missing", "denied"]
    assert len(statuses) == sum(result.statuses.values()) == NUM_IMAGES


def test_images_that_change_while_the_job_runs_are_outcomes(
    azure_batch: BatchRun,
    container: str,
    azurite: Azurite,
    cosmos: CosmosProxy,
    blob_proxy: Proxy,
    address: CosmosAddress,
) -> None:
    """The job's own first read sets it off; no read passes before the blobs are others."""
    uris = azure_batch.manifest.table(["uri"])["uri"].to_pylist()[-5:]
    names = [uri.removeprefix(f"az://{container}/") for uri in uris]
    turn, seen = asyncio.Lock(), list[str]()

    with BlobServiceClient(azurite.endpoint, azurite.key) as service:
        blobs = service.get_container_client(container)
        kept = {name: blobs.download_blob(name).readall() for name in names}

        def change() -> None:
            seen.extend(document["status"] for document in jobs(address, cosmos.key, azure_batch.id))
            for name in names:
                blobs.upload_blob(name, b"another picture", overwrite=True)

        async def change_at_the_first_read(asked: Asked) -> Fault | None:
            if asked.operation == "get":
                async with turn:
                    if not seen:
                        await asyncio.to_thread(change)
            return None

        try:
            with injected(blob_proxy, change_at_the_first_read):
                result = run_batch(azure_batch, Told())
        finally:
            for name, data in kept.items():
                blobs.upload_blob(name, data, overwrite=True)
    assert seen == ["running"]
    statuses = {document["uri"]: document["status"] for document in outcomes(address, cosmos.key, result.job)}
    assert len(statuses) == sum(result.statuses.values()) == NUM_IMAGES
    assert {uri for uri, status in statuses.items() if status == "changed"} == set(uris)


def test_a_manifest_may_lie_in_blob_storage_and_each_address_in_it_is_checked(
    azure_batch: BatchRun, container: str, azurite: Azurite, tmp_path: Path
) -> None:
    with BlobServiceClient(azurite.endpoint, azurite.key) as service:
        blobs = service.get_container_client(container)
        blobs.upload_blob("night/manifest.parquet", azure_batch.manifest.path.read_bytes(), overwrite=True)
    checked = list[str]()

    def opened(name: str) -> tuple[str, Manifest]:
        asked = JobInput(uri=f"az://{container}/night/{name}.parquet")
        return open_input(asked, azure_batch.images, tmp_path, "job", checked.append, Told())

    assert opened("manifest")[1].digest == azure_batch.manifest.digest
    with pytest.raises(GlintError, match=r"night/nowhere\.parquet cannot be read: .*"):
        opened("nowhere")
    assert checked == azure_batch.manifest.table(["uri"])["uri"].to_pylist()


def jobs(address: CosmosAddress, key: str, job: str) -> list[dict[str, Any]]:
    with CosmosClient(address.url, key) as client:
        container = client.get_database_client(address.database).get_container_client(BOOKS)
        found = container.query_items("SELECT VALUE c.job FROM c", enable_cross_partition_query=True)
        return [each for each in found if each["id"] == job]


@pytest.mark.slow
def test_a_store_that_stays_away_ends_the_job_with_its_reason_and_the_job_goes_on_later(
    azure_batch: BatchRun, cosmos: CosmosProxy, address: CosmosAddress
) -> None:
    assert isinstance(azure_batch.store, CosmosStore)
    impatient = replace(azure_batch, store=_with_deadline(azure_batch.store, 2))
    told = Told()
    with (
        injected(cosmos, Policy(Fault.status(503), operations={"batch"})),
        pytest.raises(StoreError, match=r"does not answer \(status 503\).*kept in") as raised,
    ):
        run_batch(impatient, told)
    assert "\n" not in str(raised.value)
    bridge = Bridge()
    store: ResultStore = azure_batch.store
    job = bridge.run(store.get_job(azure_batch.id))
    bridge.run(store.close())
    bridge.close()
    assert job is not None
    assert (job.status, "status 503" in (job.error or "")) == ("failed", True)
    result = run_batch(azure_batch, Told())
    assert (result.status, result.scored) == ("completed", NUM_IMAGES)
    assert len(outcomes(address, cosmos.key, result.job)) == NUM_IMAGES


def _with_deadline(store: CosmosStore, deadline_s: float) -> CosmosStore:
    return CosmosStore(store.address, store.dead_letters, WriteLimits(deadline_s=deadline_s))
