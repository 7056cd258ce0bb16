"""Documents per client CPU second: glint's store against one SDK upsert after another; at least 10 times.

python benchmarks/write_outcomes.py [--outcomes 20000]

Both sides write the same outcomes of about 1 KB to the Cosmos DB emulator behind its proxy, which are processes of
their own; the CPU is that of the writing process alone, from outcome to answer. The loop is the synchronous SDK's
`upsert_item` with its defaults. What lies there is counted after each round, past the clock.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from azure.cosmos import CosmosClient
from common import end

from glint.adapters.cosmos_client import CosmosAddress
from glint.adapters.cosmos_schema import OUTCOMES, outcome_document
from glint.adapters.cosmos_setup import create_schema
from glint.adapters.cosmos_store import CosmosStore
from glint.core.job import CHUNK_ROWS, summarise
from glint.core.outcome import ModelRef, Outcome, Score, outcome_id
from glint.emulators.fidelity import CosmosProxyProcess
from glint.emulators.install import install
from glint.emulators.servers import COSMOS_KEY, CosmosEmulator

CHUNKS_AT_ONCE = 4
ROUNDS = 4
MAX_RU = 1_000_000
"""Of the database: more than is used here, so that the store's limiter lets it write as fast as the loop may."""
MODEL = ModelRef(name="boards", version="3", bundle="b" * 32, policy="p" * 32, engine="torch-float32")


def outcome(job_id: str, number: int) -> Outcome:
    """An outcome of about 1 KB as JSON."""
    uri, etag = (
        f"az://inspection-images/line-7/2026-03-01/board-{number // 8:06d}/crop-{number:07d}.jpg",
        f"0x8DE{number:012X}",
    )
    labels = ("good", "open", "short", "mousebite", "spur")
    return Outcome(
        id=outcome_id(job_id, uri, etag),
        job_id=job_id,
        uri=uri,
        etag=etag,
        status="ok",
        labels=labels[:1],
        confidence=0.9174,
        top_k=tuple(Score(label=label, confidence=round(0.9 / 2**rank, 6)) for rank, label in enumerate(labels)),
        decision="accept",
        model=MODEL,
        group=f"lot-{number % 40:05d}",
        columns={
            "board": f"board-{number // 8:06d}",
            "line": 7,
            "operator": "night shift",
            "camera": "top-left",
            "note": "as delivered, before cleaning; second side up, tray 14 of 20, solder mask green",
        },
        width=1024,
        height=768,
        timings_ms={"read": 3.214, "decode": 4.871, "infer": 11.05},
        created_at=datetime(2026, 3, 1, 12, 0, 0, number % 1_000_000, tzinfo=UTC),
    )


def cost(work: Callable[[], None], documents: int) -> dict[str, float]:
    """CPU and wall time of `work`, which writes that many documents."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"docs_per_cpu_s": documents / cpu, "docs_per_s": documents / wall}


def write_chunks(store: CosmosStore, job_id: str, outcomes: list[Outcome]) -> None:
    """Write through the store, some chunks at once."""
    turns = asyncio.Semaphore(CHUNKS_AT_ONCE)

    async def put(number: int) -> None:
        rows = outcomes[number * CHUNK_ROWS : (number + 1) * CHUNK_ROWS]
        async with turns:
            await store.put_chunk(summarise(job_id, number, rows, {}), rows)

    async def run() -> None:
        await asyncio.gather(*(put(number) for number in range(-(-len(outcomes) // CHUNK_ROWS))))
        await store.close()

    asyncio.run(run())


def upsert_each(address: CosmosAddress, outcomes: list[Outcome]) -> None:
    """Write one after the other, as the SDK's documentation does."""
    with CosmosClient(address.url, COSMOS_KEY) as client:
        container = client.get_database_client(address.database).get_container_client(OUTCOMES)
        for row in outcomes:
            container.upsert_item({"pk": f"{row.job_id}|0", **outcome_document(row)})


def count(address: CosmosAddress, job_id: str) -> tuple[int, int]:
    """Outcomes of a job that lie there, and how many different ones."""
    with CosmosClient(address.url, COSMOS_KEY) as client:
        container = client.get_database_client(address.database).get_container_client(OUTCOMES)
        query = "SELECT VALUE c.id FROM c WHERE c.job_id = @job AND IS_DEFINED(c.uri)"
        parameters = [{"name": "@job", "value": job_id}]
        found = list(container.query_items(query, parameters=parameters, enable_cross_partition_query=True))
    return len(found), len(set(found))


def emulator_key() -> str:
    """The emulator's key, which is public."""
    return COSMOS_KEY


def main() -> None:
    """Measure both sides, turn about."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--outcomes", type=int, default=20_000)
    total = parser.parse_args().outcomes
    share = total // ROUNDS
    glint_side, loop_side, counted = [], [], 0
    with (
        tempfile.TemporaryDirectory() as directory,
        CosmosEmulator(install(Path(sys.prefix) / "emulators")) as emulator,
        CosmosProxyProcess(emulator.endpoint) as proxy,
    ):
        address = CosmosAddress("localhost", "benchmark", proxy.endpoint, emulator_key)
        asyncio.run(create_schema(address, MAX_RU))
        store = CosmosStore(address, Path(directory))
        for number in range(ROUNDS):
            ours = [outcome(f"ours-{number}", image) for image in range(share)]
            loops = [outcome(f"loop-{number}", image) for image in range(share)]
            size = len(ours[-1].model_dump_json())
            glint_side.append(cost(lambda n=number, rows=ours: write_chunks(store, f"ours-{n}", rows), share))
            loop_side.append(cost(lambda rows=loops: upsert_each(address, rows), share))
            for job_id in (f"ours-{number}", f"loop-{number}"):
                found = count(address, job_id)
                if found != (share, share):
                    raise SystemExit(
                        f"{job_id}: {share} outcomes were written, {found[0]} lie there, {found[1]} differ"
                    )
                counted += share
            print(f"round {number + 1}: {glint_side[-1]} against {loop_side[-1]}", file=sys.stderr)
    middle = {
        side: {name: round(statistics.median(each[name] for each in rounds), 1) for name in rounds[0]}
        for side, rounds in (("glint", glint_side), ("upsert_item_loop", loop_side))
    }
    end(
        "write_outcomes",
        round(middle["glint"]["docs_per_cpu_s"] / middle["upsert_item_loop"]["docs_per_cpu_s"], 2),
        "times the documents per client CPU second of an upsert_item loop",
        "at least 10",
        {**middle, "outcomes_each": total, "outcomes_counted": counted, "outcome_bytes": size},
    )


if __name__ == "__main__":
    main()
