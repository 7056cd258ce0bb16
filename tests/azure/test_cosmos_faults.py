"""Whatever goes wrong on the way to Cosmos DB: each outcome stands once afterwards, and every chunk is counted."""

from __future__ import annotations

import asyncio
import gc
import os
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from azure.cosmos import CosmosClient
from tests.faults import Policy, injected, outage
from tests.stores.store_documents import chunk_of, emulator_key, job, new_job_id

from glint.adapters import cosmos_connection, cosmos_queries
from glint.adapters.cosmos_client import CosmosAddress
from glint.adapters.cosmos_schema import OUTCOMES
from glint.adapters.cosmos_setup import create_schema
from glint.adapters.cosmos_store import CosmosStore, WriteLimits
from glint.adapters.dead_letters import read_kept
from glint.core.errors import GlintError
from glint.core.job import Totals
from glint.emulators.faults import Asked, Fault
from glint.emulators.fidelity import CosmosProxy

NUM_CHUNKS, CHUNK_SIZE, WRITERS = 24, 20, 4


@pytest.fixture(scope="module")
def address(cosmos: CosmosProxy) -> Iterator[CosmosAddress]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLINT_TEST_EMULATOR_KEY", cosmos.key)
        address = CosmosAddress("localhost", f"faults-{uuid.uuid4().hex[:8]}", cosmos.endpoint, emulator_key)
        asyncio.run(create_schema(address, 100_000))
        yield address


@pytest.fixture
def store(address: CosmosAddress, tmp_path: Path) -> CosmosStore:
    return CosmosStore(address, tmp_path / "dead-letters", WriteLimits(deadline_s=60))


async def write_job(store: CosmosStore, job_id: str) -> None:
    """Write a job's chunks as four workers would."""
    turns = asyncio.Semaphore(WRITERS)

    async def put(number: int) -> None:
        async with turns:
            await store.put_chunk(*chunk_of(job_id, number, CHUNK_SIZE))

    await asyncio.gather(*(put(number) for number in range(NUM_CHUNKS)))
    await store.close()


def documents(address: CosmosAddress, job_id: str) -> list[dict[str, Any]]:
    """All that the container holds of a job, read past the store."""
    with CosmosClient(address.url, os.environ["GLINT_TEST_EMULATOR_KEY"]) as client:
        container = client.get_database_client(address.database).get_container_client(OUTCOMES)
        query = "SELECT * FROM c WHERE c.job_id = @job"
        found = container.query_items(
            query, parameters=[{"name": "@job", "value": job_id}], enable_cross_partition_query=True
        )
        return list(found)


def assert_whole(address: CosmosAddress, job_id: str) -> None:
    """Each image has one outcome, each chunk one document, and the counts are those of the outcomes."""
    found = documents(address, job_id)
    outcomes = [document for document in found if document["kind"] == "outcome"]
    chunks = [document for document in found if document["kind"] == "chunk"]
    expected = {row.id for number in range(NUM_CHUNKS) for row in chunk_of(job_id, number, CHUNK_SIZE)[1]}
    assert Counter(document["id"] for document in outcomes) == Counter(expected)
    assert sorted(document["chunk"] for document in chunks) == list(range(NUM_CHUNKS))
    totals: Counter[str] = sum((Counter(document["statuses"]) for document in chunks), Counter())
    assert totals == Counter(document["status"] for document in outcomes)


STORMS = {
    "429 with a time to wait": (Fault.status(429, retry_after_ms=20),),
    "429 without one": (Fault.status(429),),
    "429 of one operation of a batch": (Fault.status(429, operation=3),),
    "503": (Fault.status(503),),
    "449": (Fault.status(449),),
    "408": (Fault.status(408),),
    "500": (Fault.status(500),),
    "resets": (Fault.reset(),),
    "answers lost after the write": (Fault.lost(),),
    "everything at once": (
        Fault.status(429, retry_after_ms=20),
        Fault.status(503),
        Fault.status(449),
        Fault.status(408),
        Fault.reset(),
        Fault.lost(),
    ),
}


@pytest.mark.parametrize(
    "storm", [pytest.param(storm, marks=() if storm == "everything at once" else pytest.mark.slow) for storm in STORMS]
)
def test_half_of_the_writes_fail_and_nothing_is_lost_or_double(
    cosmos: CosmosProxy, address: CosmosAddress, store: CosmosStore, storm: str
) -> None:
    job_id = new_job_id()
    with injected(cosmos, Policy(*STORMS[storm], share=0.5, seed=3)) as policy:
        asyncio.run(write_job(store, job_id))
    assert len(policy.made) >= NUM_CHUNKS // 4
    assert_whole(address, job_id)
    assert not store.dead_letters.exists()


READS = ("query", "read")


@pytest.mark.parametrize("storm", ["429 with a time to wait", "429 without one", "everything at once"])
def test_half_of_the_reads_fail_and_everything_is_read(
    cosmos: CosmosProxy, address: CosmosAddress, store: CosmosStore, storm: str
) -> None:
    job_id = new_job_id()
    mine = job(job_id)

    async def read() -> tuple[int, int]:
        await write_job(store, job_id)
        await store.put_job(mine)
        with injected(cosmos, Policy(*STORMS[storm], share=0.5, seed=3, operations=READS)) as policy:
            assert await store.get_job(job_id) == mine
            pages = [await store.page(job_id, limit=200) for _ in range(3)]
            counted = [chunk.num_images async for chunk in store.chunks(job_id)]
            assert [len(page.outcomes) for page in pages] == [200] * 3
        await store.close()
        return sum(counted), len(policy.made)

    num_images, num_faults = asyncio.run(read())
    assert num_images == NUM_CHUNKS * CHUNK_SIZE
    assert num_faults > 3


def test_a_read_comes_back_when_the_service_says(cosmos: CosmosProxy, store: CosmosStore) -> None:
    asked: list[float] = []

    async def twice(request: Asked) -> Fault | None:
        if request.operation != "query":
            return None
        asked.append(time.monotonic())
        return Fault.status(429, retry_after_ms=700) if len(asked) <= 4 else None

    async def read() -> None:
        await store.get_job("any")  # to open
        with injected(cosmos, twice):
            await store.jobs()
        await store.close()

    asyncio.run(read())
    assert len(asked) == 5
    assert all(later - sooner >= 0.69 for sooner, later in pairwise(asked))


def test_a_throttled_read_that_ends_says_that_it_was_throttled(
    cosmos: CosmosProxy, address: CosmosAddress, tmp_path: Path
) -> None:
    store = CosmosStore(address, tmp_path, WriteLimits(deadline_s=1))

    async def read() -> None:
        try:
            await store.jobs()
        finally:
            await store.close()

    with (
        injected(cosmos, Policy(Fault.status(429), operations=("query",))) as policy,
        pytest.raises(GlintError, match=r"asks to come back later \(status 429\).*GLINT_COSMOS_RU") as raised,
    ):
        asyncio.run(read())
    assert "does not answer" not in str(raised.value)
    assert "GLINT_COSMOS_ENDPOINT" not in str(raised.value)
    assert len(policy.made) > 3


def test_a_job_of_few_chunks_is_read_by_one_query_in_each_partition(
    cosmos: CosmosProxy, address: CosmosAddress, store: CosmosStore
) -> None:
    job_id = new_job_id()

    async def read() -> int:
        await write_job(store, job_id)
        with injected(cosmos, Policy(share=0)) as policy:
            assert len([chunk async for chunk in store.chunks(job_id)]) == NUM_CHUNKS
        await store.close()
        return policy.asked["query"]

    assert asyncio.run(read()) == store.num_partitions


def test_chunks_of_several_pages_are_all_read(
    address: CosmosAddress, store: CosmosStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cosmos_queries, "CHUNKS_AT_ONCE", 3)
    job_id = new_job_id()

    async def read() -> list[int]:
        await write_job(store, job_id)
        found = [chunk.chunk async for chunk in store.chunks(job_id)]
        await store.close()
        return found

    assert asyncio.run(read()) == list(range(NUM_CHUNKS))


@pytest.mark.slow
def test_stalls_of_five_seconds_lose_nothing(cosmos: CosmosProxy, address: CosmosAddress, store: CosmosStore) -> None:
    job_id = new_job_id()
    with injected(cosmos, Policy(Fault.delay(5), share=0.5, limit=6)) as policy:
        asyncio.run(write_job(store, job_id))
    assert len(policy.made) == 6
    assert_whole(address, job_id)


def test_an_answer_that_never_comes_is_asked_for_again(
    cosmos: CosmosProxy, address: CosmosAddress, store: CosmosStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cosmos_connection, "ATTEMPT_TIMEOUT_S", 0.5)
    job_id = new_job_id()
    with injected(cosmos, Policy(Fault.delay(3), limit=4)) as policy:
        asyncio.run(write_job(store, job_id))
    assert len(policy.made) == 4
    assert_whole(address, job_id)


@pytest.mark.parametrize("gone_s", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_a_server_that_is_gone_and_back_loses_nothing(
    cosmos: CosmosProxy, address: CosmosAddress, store: CosmosStore, gone_s: float
) -> None:
    job_id = new_job_id()

    async def run() -> None:
        await store.put_chunk(*chunk_of(job_id, 0, CHUNK_SIZE))
        with outage(cosmos):
            writing = asyncio.create_task(write_job(store, job_id))
            done, _ = await asyncio.wait([writing], timeout=gone_s)
            assert not done, "nothing can be written while the server is gone"
        await writing

    asyncio.run(run())
    assert_whole(address, job_id)


def test_a_store_opened_while_the_server_is_gone_writes_when_it_is_back(
    cosmos: CosmosProxy, address: CosmosAddress, store: CosmosStore
) -> None:
    job_id = new_job_id()

    async def run() -> None:
        with outage(cosmos):
            writing = asyncio.create_task(write_job(store, job_id))
            await asyncio.wait([writing], timeout=1)
        await writing

    asyncio.run(run())
    assert_whole(address, job_id)


def test_what_cannot_be_opened_leaves_no_connection_behind(address: CosmosAddress, tmp_path: Path) -> None:
    absent = CosmosStore(replace(address, database="absent"), tmp_path)

    async def ask() -> list[ClientSession]:
        for _ in range(3):
            with pytest.raises(GlintError, match="glint store init makes them"):
                await absent.jobs()
        left = [each for each in gc.get_objects() if type(each) is ClientSession and not each.closed]
        await absent.close()
        return left

    gc.collect()
    before = {id(each) for each in gc.get_objects() if type(each) is ClientSession and not each.closed}
    assert [each for each in asyncio.run(ask()) if id(each) not in before] == []


def test_a_chunk_past_its_deadline_is_kept_in_a_file_that_can_be_written_later(
    cosmos: CosmosProxy, address: CosmosAddress, tmp_path: Path
) -> None:
    job_id = new_job_id()
    store = CosmosStore(address, tmp_path / "dead-letters", WriteLimits(deadline_s=1))

    async def put_all() -> None:
        try:
            for number in range(NUM_CHUNKS):
                await store.put_chunk(*chunk_of(job_id, number, CHUNK_SIZE))
        finally:
            await store.close()

    with (
        injected(cosmos, Policy(Fault.status(503))),
        pytest.raises(GlintError, match=r"status 503.*is kept in") as raised,
    ):
        asyncio.run(put_all())
    assert "\n" not in str(raised.value)
    assert documents(address, job_id) == []
    kept = [entry for file in store.dead_letters.iterdir() for entry in read_kept(file)]
    assert [(chunk.chunk, rows) for chunk, rows in kept] == [(0, chunk_of(job_id, 0, CHUNK_SIZE)[1])]

    async def replay() -> None:
        for chunk, outcomes in kept:
            await store.put_chunk(chunk, outcomes)
        await store.close()

    asyncio.run(replay())
    asyncio.run(write_job(store, job_id))
    assert_whole(address, job_id)


def test_a_batch_that_is_too_large_is_cut(address: CosmosAddress, store: CosmosStore) -> None:
    job_id = new_job_id()
    chunk, outcomes = chunk_of(job_id, 0, CHUNK_SIZE, columns={"text": "x" * 150_000})

    async def put() -> int:
        await store.put_chunk(chunk, outcomes)
        totals = Totals()
        async for each in store.chunks(job_id):
            totals.add(each)
        await store.close()
        return totals.num_images

    assert asyncio.run(put()) == CHUNK_SIZE
    found = Counter(document["id"] for document in documents(address, job_id))
    assert found == Counter([*(row.id for row in outcomes), "chunk-0"])
