"""Jobs, chunks and outcomes to put into a store, and a writer that other processes can run."""

from __future__ import annotations

import itertools
import os
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from typing import Any

from glint.core.job import CHUNK_ROWS, Chunk, Job, summarise
from glint.core.outcome import ModelRef, Outcome, OutcomeError, Score, outcome_id
from glint.core.stores import EVERY, Bridge, OutcomeFilter, Page, ResultStore

MODEL = ModelRef(name="boards", version="3", bundle="b1", policy="p1", engine="openvino-int8")
LABELS = ("good", "open", "short")
DECISIONS = ("accept", "review", "reject")
BRIEF_S = 10
"""How long the outcomes of a chunk of short memory live."""


def new_job_id() -> str:
    """An id that no other test uses: a store may outlive the tests."""
    return uuid.uuid4().hex[:16]


def job(job_id: str, **changes: Any) -> Job:
    """A running job."""
    values: dict[str, Any] = {
        "id": job_id,
        "status": "running",
        "model": MODEL,
        "model_uri": "models:/boards/3",
        "input": "az://boards/line-7",
        "input_digest": "d1",
        "manifest": "/data/manifest.parquet",
        "num_images": 198,
        "num_chunks": 2,
        "options": {"top_k": 5, "only_new": False},
    }
    return Job(**values | changes)


def outcome(job_id: str, number: int, **changes: Any) -> Outcome:
    """The outcome of image `number`: every seventh is missing, the others vary in label, confidence and decision."""
    uri, etag = f"az://boards/line-7/plätze/{number:06d}.jpg", f"0x8D{number}"
    values: dict[str, Any] = {
        "id": outcome_id(job_id, uri, etag),
        "job_id": job_id,
        "uri": uri,
        "etag": etag,
        "model": MODEL,
        "group": f"lot-{number % 5}",
        "columns": {"line": 7, "operator": "Zoë", "shift": None, "tags": ["a", {"b": 1.5}]},
        "created_at": datetime(2026, 3, 1, 12, 0, 0, number % 1_000_000, tzinfo=UTC),
    }
    if number % 7 == 0:
        said: dict[str, Any] = {"status": "missing", "error": OutcomeError(type="not_found", message="no such blob")}
    else:
        label, confidence = LABELS[number % 3], number % 11 / 10
        said = {
            "status": "ok",
            "labels": (label,),
            "confidence": confidence,
            "top_k": (Score(label=label, confidence=confidence),),
            "decision": DECISIONS[number % 4 % 3],
            "width": 640,
            "height": 480,
            "timings_ms": {"read": 1.25, "infer": 8.0},
        }
    return Outcome(**values | said | changes)


def chunk_of(job_id: str, number: int, size: int = 5, **changes: Any) -> tuple[Chunk, list[Outcome]]:
    """Chunk `number` of a job whose chunks have `size` images, and its outcomes."""
    outcomes = [outcome(job_id, number * size + offset, **changes) for offset in range(size)]
    return summarise(job_id, number, outcomes, {"read": 0.5}), outcomes


def fill(bridge: Bridge, store: ResultStore, job_id: str, num_chunks: int, size: int = 5) -> dict[str, Outcome]:
    """Write that many chunks and return their outcomes by id."""
    written = {}
    for number in range(num_chunks):
        chunk, outcomes = chunk_of(job_id, number, size)
        bridge.run(store.put_chunk(chunk, outcomes))
        written.update({row.id: row for row in outcomes})
    return written


def read_pages(
    bridge: Bridge, store: ResultStore, job_id: str, where: OutcomeFilter = EVERY, limit: int = 1000
) -> list[Page]:
    """All pages, one after the other."""
    pages = [bridge.run(store.page(job_id, where, limit=limit))]
    while pages[-1].cursor is not None:
        pages.append(bridge.run(store.page(job_id, where, cursor=pages[-1].cursor, limit=limit)))
    return pages


def read_outcomes(
    bridge: Bridge, store: ResultStore, job_id: str, where: OutcomeFilter = EVERY, limit: int = 1000
) -> list[Outcome]:
    """The outcomes of all pages, in the order in which they came."""
    return [row for page in read_pages(bridge, store, job_id, where, limit) for row in page.outcomes]


def write_until_killed(store: ResultStore, job_id: str, written: Connection) -> None:
    """What a worker process does that comes to a bad end: write full chunks, telling of each, without end."""
    bridge = Bridge()
    for number in itertools.count():
        bridge.run(store.put_chunk(*chunk_of(job_id, number, CHUNK_ROWS)))
        written.send(number)


def write_chunks(store: ResultStore, job_id: str, numbers: Iterable[int]) -> None:
    """What a worker process does: write chunks of a job, and close."""
    bridge = Bridge()
    for number in numbers:
        bridge.run(store.put_chunk(*chunk_of(job_id, number)))
    bridge.run(store.close())
    bridge.close()


def emulator_key() -> str:
    """The emulator's key, which every process finds in its environment, as that of a real account."""
    return os.environ["GLINT_TEST_EMULATOR_KEY"]


def account_key() -> str | None:
    """The real account's key; None = Entra ID."""
    return os.environ.get("GLINT_COSMOS_KEY")
