"""A part of a database's request units stays free for readers, however many jobs write; nobody has to ask for it."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.faults import injected
from tests.stores.store_documents import chunk_of, emulator_key, new_job_id

from glint.adapters import cosmos_budget
from glint.adapters.cosmos_client import CosmosAddress
from glint.adapters.cosmos_setup import create_schema
from glint.adapters.cosmos_store import CosmosStore, WriteLimits
from glint.emulators.faults import Asked, Fault
from glint.emulators.fidelity import CosmosProxy
from glint.settings import Settings
from glint.wiring import check_store_answers

MakeStore = Callable[..., CosmosStore]
RU = 1000


@pytest.fixture
def make_store(cosmos: CosmosProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeStore:
    """A store in a database of its own; `like` is one in the same database."""
    monkeypatch.setenv("GLINT_TEST_EMULATOR_KEY", cosmos.key)

    def make(
        max_ru: int | None = RU, autoscale: bool = True, total_ru: int | None = None, like: CosmosStore | None = None
    ) -> CosmosStore:
        address = CosmosAddress("localhost", f"budget-{uuid.uuid4().hex[:8]}", cosmos.endpoint, emulator_key)
        if like is None:
            asyncio.run(create_schema(address, max_ru, autoscale))
        return CosmosStore(like.address if like else address, tmp_path, WriteLimits(total_ru))

    return make


def ceilings(*stores: CosmosStore) -> list[float]:
    """RU/s that each of these writers may spend, after all have written a chunk, one after the other, and again."""

    async def write() -> list[float]:
        async with AsyncExitStack() as open_stores:
            for store in stores:
                open_stores.push_async_callback(store.close)
            for store in (*stores, *stores):
                await store.put_chunk(*chunk_of(new_job_id(), 0, 5))
            return [store.limiter.ceiling for store in stores]

    return asyncio.run(write())


@pytest.mark.parametrize(
    ("made", "ceiling"),
    [
        ({"max_ru": 5000}, 4000),
        ({"max_ru": 600, "autoscale": False}, 480),
        ({"max_ru": None}, 3200),
        ({"max_ru": 5000, "total_ru": 2000}, 1600),
    ],
    ids=["autoscale", "manual", "serverless", "setting"],
)
def test_a_writer_takes_four_fifths_of_what_the_database_has(
    make_store: MakeStore, made: dict[str, int], ceiling: float
) -> None:
    assert ceilings(make_store(**made)) == [pytest.approx(ceiling)]


def test_an_identity_that_may_not_ask_takes_its_share_of_the_default(
    make_store: MakeStore, cosmos: CosmosProxy
) -> None:
    async def forbid(asked: Asked) -> Fault | None:
        return Fault.status(403) if asked.path == "/offers" else None

    store = make_store(5000)
    with injected(cosmos, forbid):
        assert ceilings(store) == [pytest.approx(3200)]


def test_writers_share_the_budget_whatever_job_they_belong_to(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cosmos_budget, "RENEW_S", 0)
    first = make_store(5000)
    assert ceilings(first, make_store(like=first), make_store(like=first)) == [pytest.approx(4000 / 3)] * 3


def test_the_share_of_a_writer_that_ends_is_taken_by_the_others_at_once(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cosmos_budget, "RENEW_S", 0)
    first = make_store(5000)
    assert ceilings(first, make_store(like=first)) == [pytest.approx(2000)] * 2
    assert ceilings(make_store(like=first)) == [pytest.approx(4000)]


def test_the_share_of_a_writer_that_died_is_taken_by_the_others_soon(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cosmos_budget, "RENEW_S", 0)
    monkeypatch.setattr(cosmos_budget, "LIFE_S", 2)
    staying = make_store(5000)

    async def write() -> None:
        dead = make_store(like=staying)
        await dead.put_chunk(*chunk_of(new_job_id(), 0, 5))
        await staying.put_chunk(*chunk_of(new_job_id(), 0, 5))
        assert staying.limiter.ceiling == pytest.approx(2000)
        async with asyncio.timeout(20):
            while staying.limiter.ceiling < 4000:
                await staying.put_chunk(*chunk_of(new_job_id(), 0, 5))
        await staying.close()
        await dead.close()

    asyncio.run(write())


def test_writing_goes_on_when_writers_cannot_be_counted(make_store: MakeStore, cosmos: CosmosProxy) -> None:
    async def refuse(asked: Asked) -> Fault | None:
        return Fault.status(503) if "/colls/books/docs" in asked.path or asked.path == "/offers" else None

    store = make_store(5000)
    with injected(cosmos, refuse):
        assert ceilings(store) == [pytest.approx(3200)]


class Metered:
    """Refuses what goes beyond the RU/s of a database, counted second by second, as the service does."""

    def __init__(self, ru: float) -> None:
        self.ru = ru
        self.refused: list[str] = []
        self.spent = 0.0
        self._second, self._used = 0, 0.0

    async def __call__(self, asked: Asked) -> Fault | None:
        if asked.operation == "metadata":
            return None
        units = 5.5 * asked.body.count(b'"operationType"') if asked.operation == "batch" else 5.0
        if int(time.monotonic()) != self._second:
            self._second, self._used = int(time.monotonic()), 0.0
        if self._used + units > self.ru:
            self.refused.append(asked.operation)
            return Fault.status(429, retry_after_ms=100)
        self._used += units
        self.spent += units
        return None


def test_readers_are_not_refused_while_two_jobs_write_all_they_can(make_store: MakeStore, cosmos: CosmosProxy) -> None:
    first = make_store()
    second, reader = make_store(like=first), make_store(like=first)
    num_chunks, size = 24, 9

    async def write(store: CosmosStore) -> None:
        job_id = new_job_id()
        async with asyncio.TaskGroup() as writing:
            for number in range(num_chunks):
                writing.create_task(store.put_chunk(*chunk_of(job_id, number, size)))

    async def read(ended: asyncio.Event) -> int:
        num = 0
        while not ended.is_set():
            await reader.jobs()
            num += 1
            await asyncio.sleep(0.05)
        return num

    async def run() -> int:
        ended = asyncio.Event()
        reading = asyncio.create_task(read(ended))
        await asyncio.gather(write(first), write(second))
        ended.set()
        num = await reading
        for store in (first, second, reader):
            await store.close()
        return num

    with injected(cosmos, Metered(RU)) as meter:
        assert asyncio.run(run()) > 5
    assert meter.spent > 2 * num_chunks * (size + 1) * 5
    assert "query" not in meter.refused


def test_chunks_are_written_and_deleted_after_whoever_reads(make_store: MakeStore, cosmos: CosmosProxy) -> None:
    priorities: set[tuple[str, str | None]] = set()

    async def note(asked: Asked) -> Fault | None:
        if asked.operation in ("batch", "query", "read"):
            priorities.add((asked.operation, asked.headers.get("x-ms-cosmos-priority-level")))
        return None

    async def use(store: CosmosStore) -> None:
        job_id = new_job_id()
        await store.put_chunk(*chunk_of(job_id, 0, 5))
        await store.page(job_id)
        await store.delete_job(job_id)
        assert not (await store.page(job_id)).outcomes
        await store.close()

    with injected(cosmos, note):
        asyncio.run(use(make_store()))
    assert priorities == {("batch", "Low"), ("query", None)}


@pytest.mark.parametrize(
    ("made", "setting", "said"),
    [
        ({"max_ru": None}, {}, "GLINT_COSMOS_RU is not set .* jobs together write with 3,200 at most, 80% of 4,000"),
        ({"max_ru": None}, {"cosmos_ru": 5000}, None),
        ({"max_ru": 5000}, {}, None),
    ],
)
def test_a_budget_that_had_to_be_guessed_is_told(
    make_store: MakeStore,
    cosmos: CosmosProxy,
    monkeypatch: pytest.MonkeyPatch,
    made: dict[str, int | None],
    setting: dict[str, int],
    said: str | None,
) -> None:
    monkeypatch.setenv("GLINT_COSMOS_KEY", cosmos.key)
    uri = make_store(**made).address.uri
    told = check_store_answers(Settings(store=uri, cosmos_endpoint=cosmos.endpoint, **setting))
    assert told is None if said is None else re.search(said, str(told))
