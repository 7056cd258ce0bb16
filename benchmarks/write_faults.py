"""Half of all writes answered 429 for 30 s: nothing may be lost, and the writer's rate recover within 10 s.

python benchmarks/write_faults.py

The writer is allowed 5,000 of 6,250 RU/s, about a thousand outcomes a second. The value is how long after the storm the
limiter's rate was back at 80% of its level before; every outcome is counted afterwards.
"""

import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path

from azure.cosmos import CosmosClient
from common import end
from write_outcomes import emulator_key, outcome

from glint.adapters.cosmos_client import CosmosAddress
from glint.adapters.cosmos_schema import OUTCOMES
from glint.adapters.cosmos_setup import create_schema
from glint.adapters.cosmos_store import CosmosStore, WriteLimits
from glint.core.job import CHUNK_ROWS, summarise
from glint.emulators.faults import Asked, Fault
from glint.emulators.fidelity import CosmosProxy
from glint.emulators.install import install
from glint.emulators.servers import CosmosEmulator

CALM_S, STORM_S, AFTER_S = 15.0, 30.0, 15.0
WRITERS = 4
TOTAL_RU_S = 6250
SHARE = 0.5
JOB = "storm"
EVERY_ID = "SELECT VALUE c.id FROM c WHERE c.kind = 'outcome'"


class Storm:
    """Answers a share of the batches with 429 while `raging`, half of those without saying when to come back."""

    def __init__(self) -> None:
        self.raging = False
        self.refused = 0
        self._random = random.Random(7)

    async def __call__(self, asked: Asked) -> Fault | None:
        """The fault of one request."""
        if not self.raging or asked.operation not in ("batch", "upsert") or self._random.random() >= SHARE:
            return None
        self.refused += 1
        return Fault.status(429, retry_after_ms=self._random.choice((None, 100)))


async def write(store: CosmosStore, numbers: list[int], ended: asyncio.Event) -> None:
    """Write chunk after chunk until the end."""
    while not ended.is_set():
        number = len(numbers)
        numbers.append(number)
        rows = [outcome(JOB, number * CHUNK_ROWS + offset) for offset in range(CHUNK_ROWS)]
        await store.put_chunk(summarise(JOB, number, rows, {}), rows)


async def weather(store: CosmosStore, storm: Storm) -> dict[str, float]:
    """Calm, storm and what follows; returns rates in RU/s and the time of recovery."""
    numbers: list[int] = []
    ended = asyncio.Event()
    writers = [asyncio.create_task(write(store, numbers, ended)) for _ in range(WRITERS)]
    await asyncio.sleep(CALM_S)
    before, storm.raging, first = store.limiter.rate, True, len(numbers)
    await asyncio.sleep(STORM_S)
    storm.raging, lowest, during = False, store.limiter.rate, len(numbers) - first
    stopped = time.monotonic()
    while store.limiter.rate < 0.8 * before and time.monotonic() - stopped < 2 * AFTER_S:
        await asyncio.sleep(0.05)
    recovered = time.monotonic() - stopped
    await asyncio.sleep(max(0.0, AFTER_S - recovered))
    ended.set()
    await asyncio.gather(*writers)
    counted = sum([chunk.num_images async for chunk in store.chunks(JOB)])
    await store.close()
    return {
        "rate_before_ru_s": round(before),
        "rate_at_end_of_storm_ru_s": round(lowest),
        "recovered_after_s": round(recovered, 1),
        "chunks_during_storm": during,
        "given": len(numbers) * CHUNK_ROWS,
        "counted_by_chunks": counted,
    }


if __name__ == "__main__":
    storm = Storm()
    with (
        tempfile.TemporaryDirectory() as directory,
        CosmosEmulator(install(Path(sys.prefix) / "emulators")) as emulator,
        CosmosProxy(emulator.endpoint, fault=storm) as proxy,
    ):
        address = CosmosAddress("localhost", "benchmark", proxy.endpoint, emulator_key)
        asyncio.run(create_schema(address, 4000))
        sides = asyncio.run(weather(CosmosStore(address, Path(directory), WriteLimits(total_ru=TOTAL_RU_S)), storm))
        with CosmosClient(address.url, emulator_key()) as client:
            container = client.get_database_client(address.database).get_container_client(OUTCOMES)
            found = list(container.query_items(EVERY_ID, enable_cross_partition_query=True))
        kept = len(list(Path(directory).iterdir()))
    end(
        "write_faults",
        sides["recovered_after_s"],
        "s until 80% of the former rate",
        "at most 10 s, and nothing lost",
        {
            **sides,
            "found": len(found),
            "lost": sides["given"] - len(set(found)),
            "refused": storm.refused,
            "dead_letter_files": kept,
        },
    )
