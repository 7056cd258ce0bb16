"""What every result store does, whichever it is."""

from __future__ import annotations

import asyncio
import multiprocessing
import pickle
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from azure.cosmos import CosmosClient
from azure.identity import DefaultAzureCredential
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_documents import (
    BRIEF_S,
    DECISIONS,
    LABELS,
    chunk_of,
    fill,
    job,
    new_job_id,
    outcome,
    read_outcomes,
    read_pages,
    write_chunks,
)

from glint.adapters.cosmos_client import CosmosAddress
from glint.adapters.cosmos_schema import OUTCOMES
from glint.adapters.cosmos_store import CosmosStore
from glint.core.errors import ConflictError, GlintError
from glint.core.job import CHUNK_ROWS, Totals, summarise
from glint.core.label_event import LabelEvent
from glint.core.outcome import Outcome
from glint.core.stores import ABSENT, MAX_PAGE, Bridge, Document, OutcomeFilter, ResultStore


def totals(bridge: Bridge, store: ResultStore, job_id: str) -> Totals:
    sums = Totals()
    for chunk in bridge.collect(store.chunks(job_id)):
        sums.add(chunk)
    return sums


def passes(row: Outcome, where: OutcomeFilter) -> bool:
    wanted = {"status": where.status, "label": where.label, "decision": where.decision}
    if any(value is not None and getattr(row, name) != value for name, value in wanted.items()):
        return False
    if where.min_confidence is None and where.max_confidence is None:
        return True
    low, high = where.min_confidence or 0, 1 if where.max_confidence is None else where.max_confidence
    return row.confidence is not None and low <= row.confidence <= high


# Jobs


def test_job_comes_back_as_it_was_put(store: ResultStore, bridge: Bridge) -> None:
    put = job(new_job_id(), ended_at=datetime(2026, 1, 2, tzinfo=UTC), error="the budget of errors is spent")
    bridge.run(store.put_job(put))
    assert bridge.run(store.get_job(put.id)) == put


def test_a_job_that_is_not_there_is_none(store: ResultStore, bridge: Bridge) -> None:
    assert bridge.run(store.get_job(new_job_id())) is None


def test_putting_a_job_again_replaces_it(store: ResultStore, bridge: Bridge) -> None:
    running = job(new_job_id(), created_at=datetime.now(UTC) + timedelta(days=1000))
    completed = running.model_copy(update={"status": "completed"})
    for version in (running, running, completed):
        bridge.run(store.put_job(version))
    assert bridge.run(store.get_job(running.id)) == completed
    assert [found for found in bridge.run(store.jobs()) if found.id == running.id] == [completed]


def test_jobs_come_newest_first_in_any_time_zone_and_no_more_than_asked_for(store: ResultStore, bridge: Bridge) -> None:
    latest = datetime.now(UTC) + timedelta(days=2000)
    offsets = [timedelta(0), timedelta(hours=9), timedelta(hours=-5), timedelta(hours=2)]
    times = [
        (latest - timedelta(microseconds=back)).astimezone(timezone(offset)) for back, offset in enumerate(offsets)
    ]
    put = [job(new_job_id(), created_at=time) for time in times]
    for index in (2, 0, 3, 1):
        bridge.run(store.put_job(put[index]))
    assert [found.id for found in bridge.run(store.jobs(limit=4))] == [one.id for one in put]
    assert [found.id for found in bridge.run(store.jobs(limit=2))] == [one.id for one in put[:2]]


def test_a_job_is_replaced_by_its_etag_only_while_nobody_else_has_changed_it(
    store: ResultStore, bridge: Bridge
) -> None:
    mine = job(new_job_id())
    first = bridge.run(store.put_job(mine))
    assert bridge.run(store.get_job_and_etag(mine.id)) == (mine, first)
    theirs = mine.model_copy(update={"error": "theirs"})
    second = bridge.run(store.put_job(theirs, first))
    assert second != first
    with pytest.raises(ConflictError, match=mine.id):
        bridge.run(store.put_job(mine, first))
    assert bridge.run(store.get_job_and_etag(mine.id)) == (theirs, second)
    with pytest.raises(ConflictError):
        bridge.run(store.put_job(job(new_job_id()), first))


@pytest.mark.parametrize("name", ["line 4/night", "a\\b?c#d ", "Nähte|2", "x" * 300])
def test_a_job_may_have_any_name(store: ResultStore, bridge: Bridge, name: str) -> None:
    mine = job(f"{name}{new_job_id()}")
    bridge.run(store.put_job(mine))
    written = fill(bridge, store, mine.id, num_chunks=2)
    assert bridge.run(store.get_job(mine.id)) == mine
    assert [row.id for row in read_outcomes(bridge, store, mine.id)] == sorted(written)


# Documents of the books


def entry(id: str, sort_key: str = "a", **changes: Any) -> Document:
    values: dict[str, Any] = {
        "kind": "submission",
        "id": id,
        "sort_key": sort_key,
        "body": {"of": "Zoë", "n": [1, None]},
    }
    return Document(**values | changes)


def read_documents(bridge: Bridge, store: ResultStore, kind: str, limit: int, **where: Any) -> list[Document]:
    found: list[Document] = []
    cursor = None
    while True:
        page = bridge.run(store.documents(kind, cursor=cursor, limit=limit, **where))
        found += page.documents
        cursor = page.cursor
        if cursor is None:
            return found
        assert len(page.documents) == limit


@pytest.mark.parametrize("id", ["line-4", "line 4/night", "a\\b?c#d"])
def test_a_document_comes_back_as_it_was_put_and_goes(store: ResultStore, bridge: Bridge, id: str) -> None:
    put = entry(id + new_job_id(), group="line-4", open=True)
    etag = bridge.run(store.put_document(put))
    assert bridge.run(store.get_document(put.kind, put.id)) == (put, etag)
    assert bridge.run(store.get_document("endpoint", put.id)) is None
    for _ in range(2):
        bridge.run(store.delete_document(put.kind, put.id))
    assert bridge.run(store.get_document(put.kind, put.id)) is None


def test_a_document_is_inserted_once_and_replaced_only_while_nobody_else_has_changed_it(
    store: ResultStore, bridge: Bridge
) -> None:
    mine = entry(new_job_id())
    with pytest.raises(ConflictError, match=mine.id):
        bridge.run(store.put_document(mine, "an etag that nothing has"))
    first = bridge.run(store.put_document(mine, ABSENT))
    with pytest.raises(ConflictError, match=mine.id):
        bridge.run(store.put_document(mine, ABSENT))
    theirs = entry(mine.id, "b", open=True)
    second = bridge.run(store.put_document(theirs, first))
    with pytest.raises(ConflictError, match=mine.id):
        bridge.run(store.put_document(mine, first))
    assert bridge.run(store.get_document(mine.kind, mine.id)) == (theirs, second)


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_documents_of_a_kind_come_with_the_greatest_sort_key_first(
    store: ResultStore, bridge: Bridge, limit: int
) -> None:
    kind = f"kind-{new_job_id()}"
    put = [
        entry(f"{number}", f"key {number}", kind=kind, group="ab"[number % 2], open=number % 3 == 0)
        for number in range(6)
    ]
    for document in (put[3], put[5], put[0], put[1], put[4], put[2]):
        bridge.run(store.put_document(document))
    assert read_documents(bridge, store, kind, limit) == put[::-1]
    assert read_documents(bridge, store, kind, limit, group="b") == [put[5], put[3], put[1]]
    assert read_documents(bridge, store, kind, limit, open=True) == [put[3], put[0]]
    assert read_documents(bridge, store, kind, limit, open=False, group="a") == [put[4], put[2]]


# Label events


def events_of(uri: str, count: int) -> list[LabelEvent]:
    start = datetime.now(UTC) + timedelta(days=1000)
    said = [("open",), ("open", "short"), ()]
    return [
        LabelEvent(
            uri=uri,
            labels=said[number % 3],
            author="Zoë",
            note="under the lamp",
            created_at=start + timedelta(seconds=number),
        )
        for number in range(count)
    ]


def read_events(bridge: Bridge, store: ResultStore, uri: str | None, limit: int) -> list[LabelEvent]:
    found, cursor = [], None
    while True:
        page = bridge.run(store.label_events(uri, cursor, limit))
        found += page.events
        cursor = page.cursor
        if cursor is None:
            return found
        assert len(page.events) == limit


@pytest.mark.parametrize("limit", [1, 3, 7, 100])
def test_label_events_of_an_image_come_oldest_first(store: ResultStore, bridge: Bridge, limit: int) -> None:
    mine, other = (f"az://boards/{new_job_id()}.jpg" for _ in range(2))
    events = events_of(mine, 7)
    bridge.run(store.put_label_events([*reversed(events), *events_of(other, 2)]))
    assert read_events(bridge, store, mine, limit) == events


def test_all_label_events_come_in_order_and_once_though_put_twice(store: ResultStore, bridge: Bridge) -> None:
    events = [event for number in range(9) for event in events_of(f"az://boards/{new_job_id()}-{number}.jpg", 2)]
    for _ in range(2):
        bridge.run(store.put_label_events(events))
    ids = {event.id for event in events}
    found = read_events(bridge, store, None, 5)
    assert [event for event in found if event.id in ids] == sorted(events, key=lambda event: event.sort_key)
    assert [event.sort_key for event in found] == sorted({event.sort_key for event in found})


def test_label_events_added_between_pages_neither_repeat_nor_hide_any(store: ResultStore, bridge: Bridge) -> None:
    uri = f"az://boards/{new_job_id()}.jpg"
    events = events_of(uri, 6)
    bridge.run(store.put_label_events(events[:4]))
    page = bridge.run(store.label_events(uri, limit=2))
    bridge.run(store.put_label_events(events[4:]))
    following = bridge.run(store.label_events(uri, page.cursor, limit=10))
    assert [*page.events, *following.events] == events


def test_an_image_that_nobody_has_labelled_has_no_events(store: ResultStore, bridge: Bridge) -> None:
    page = bridge.run(store.label_events(f"az://boards/{new_job_id()}.jpg"))
    assert (page.events, page.cursor) == ((), None)


# Chunks


def test_outcomes_come_back_as_they_were_put(store: ResultStore, bridge: Bridge) -> None:
    job_id = new_job_id()
    written = fill(bridge, store, job_id, num_chunks=1, size=CHUNK_ROWS)
    assert {row.id: row for row in read_outcomes(bridge, store, job_id)} == written
    assert {row.status for row in written.values()} == {"ok", "missing"}


def test_chunk_document_comes_back_with_its_outcomes(store: ResultStore, bridge: Bridge) -> None:
    chunk, outcomes = chunk_of(new_job_id(), 0)
    bridge.run(store.put_chunk(chunk, outcomes))
    assert bridge.collect(store.chunks(chunk.job_id)) == [chunk]


def test_writing_a_chunk_again_counts_nothing_twice(store: ResultStore, bridge: Bridge) -> None:
    job_id = new_job_id()
    fill(bridge, store, job_id, num_chunks=3)
    once = totals(bridge, store, job_id)
    written = fill(bridge, store, job_id, num_chunks=3)
    assert totals(bridge, store, job_id) == once
    assert [row.id for row in read_outcomes(bridge, store, job_id)] == sorted(written)


def test_writing_a_chunk_again_replaces_what_it_said(store: ResultStore, bridge: Bridge) -> None:
    job_id = new_job_id()
    fill(bridge, store, job_id, num_chunks=2)
    said = {"status": "timed_out", "labels": (), "confidence": None, "decision": None}
    chunk, outcomes = chunk_of(job_id, 1, **said)
    bridge.run(store.put_chunk(chunk, outcomes))
    late = read_outcomes(bridge, store, job_id, OutcomeFilter(status="timed_out"))
    assert {row.id: row for row in late} == {row.id: row for row in outcomes}
    assert totals(bridge, store, job_id).statuses["timed_out"] == len(outcomes)
    for label in LABELS:
        found = read_outcomes(bridge, store, job_id, OutcomeFilter(label=label))
        assert not {row.id for row in found} & {row.id for row in outcomes}


def test_chunks_come_in_order_however_they_were_written(store: ResultStore, bridge: Bridge) -> None:
    job_id = new_job_id()
    numbers = [11, 2, 0, 10, 7, 1, 100]
    for number in numbers:
        bridge.run(store.put_chunk(*chunk_of(job_id, number)))
    assert [chunk.chunk for chunk in bridge.collect(store.chunks(job_id))] == sorted(numbers)


def test_jobs_do_not_see_each_other(store: ResultStore, bridge: Bridge) -> None:
    mine, other = new_job_id(), new_job_id()
    written = fill(bridge, store, mine, num_chunks=2)
    fill(bridge, store, other, num_chunks=3)
    assert [row.id for row in read_outcomes(bridge, store, mine)] == sorted(written)
    assert [chunk.chunk for chunk in bridge.collect(store.chunks(mine))] == [0, 1]


def test_a_job_without_results_is_empty(store: ResultStore, bridge: Bridge) -> None:
    job_id = new_job_id()
    assert bridge.collect(store.chunks(job_id)) == []
    page = bridge.run(store.page(job_id))
    assert (page.outcomes, page.cursor) == ((), None)


def test_a_chunk_that_does_not_count_its_outcomes_is_refused_whole(store: ResultStore, bridge: Bridge) -> None:
    job_id = new_job_id()
    chunk, outcomes = chunk_of(job_id, 0)
    too_many = [outcome(job_id, number) for number in range(CHUNK_ROWS + 1)]
    wrong = [
        (chunk, outcomes[:-1]),
        (chunk, [*outcomes[:-1], outcomes[0]]),
        (chunk, chunk_of(new_job_id(), 0)[1]),
        (summarise(job_id, 0, too_many, {}), too_many),
    ]
    for document, rows in wrong:
        with pytest.raises(ValueError, match=f"chunk 0 of job {job_id}"):
            bridge.run(store.put_chunk(document, rows))
    assert bridge.collect(store.chunks(job_id)) == []
    assert bridge.run(store.page(job_id)).outcomes == ()


def test_chunks_that_are_forgotten_leave_their_outcomes_until_they_are_written_again(
    store: ResultStore, bridge: Bridge
) -> None:
    job_id = new_job_id()
    written = fill(bridge, store, job_id, num_chunks=6)
    bridge.run(store.forget_chunks(job_id, {1, 4, 5, 77}))
    assert [chunk.chunk for chunk in bridge.collect(store.chunks(job_id))] == [0, 2, 3]
    assert [row.id for row in read_outcomes(bridge, store, job_id)] == sorted(written)
    fill(bridge, store, job_id, num_chunks=6)
    assert totals(bridge, store, job_id).num_images == len(read_outcomes(bridge, store, job_id)) == len(written)


def test_a_deleted_job_leaves_nothing_and_takes_nothing_of_others(store: ResultStore, bridge: Bridge) -> None:
    mine, other = job(new_job_id()), job(new_job_id())
    for one in (mine, other):
        bridge.run(store.put_job(one))
        fill(bridge, store, one.id, num_chunks=5, size=60)
    for _ in range(2):
        bridge.run(store.delete_job(mine.id))
    assert bridge.run(store.get_job(mine.id)) is None
    assert bridge.collect(store.chunks(mine.id)) == []
    assert bridge.run(store.page(mine.id)).outcomes == ()
    assert bridge.run(store.get_job(other.id)) == other
    assert len(read_outcomes(bridge, store, other.id)) == 300


# Pages


@pytest.mark.parametrize("limit", [1, 3, 6, 12, 13])
def test_pages_bring_each_outcome_once_in_the_order_of_ids(store: ResultStore, bridge: Bridge, limit: int) -> None:
    job_id = new_job_id()
    written = fill(bridge, store, job_id, num_chunks=6, size=2)
    pages = read_pages(bridge, store, job_id, limit=limit)
    assert [row.id for page in pages for row in page.outcomes] == sorted(written)
    assert [len(page.outcomes) for page in pages[:-1]] == [limit] * (len(pages) - 1)
    assert pages[-1].outcomes, "the last page must not be an empty one"


def test_outcomes_added_between_pages_neither_repeat_nor_hide_any(store: ResultStore, bridge: Bridge) -> None:
    job_id = new_job_id()
    stood = fill(bridge, store, job_id, num_chunks=4)
    seen: list[str] = []
    cursor, further = None, 4
    while True:
        page = bridge.run(store.page(job_id, cursor=cursor, limit=3))
        seen += [row.id for row in page.outcomes]
        cursor = page.cursor
        if cursor is None:
            break
        if further < 10:
            bridge.run(store.put_chunk(*chunk_of(job_id, further)))
            bridge.run(store.put_chunk(*chunk_of(job_id, further % 4)))
            further += 1
    assert seen == sorted(set(seen))
    assert set(stood) <= set(seen)


@pytest.mark.parametrize("limit", [0, -1, MAX_PAGE + 1])
def test_a_page_of_impossible_size_is_refused(store: ResultStore, bridge: Bridge, limit: int) -> None:
    with pytest.raises(GlintError, match=f"limit must be 1 to {MAX_PAGE}, got {limit}"):
        bridge.run(store.page("any", limit=limit))
    with pytest.raises(GlintError, match=f"limit must be 1 to {MAX_PAGE}, got {limit}"):
        bridge.run(store.jobs(limit=limit))


some = st.none()
bounds = st.tuples(some | st.integers(0, 10).map(lambda n: n / 10), some | st.integers(0, 10).map(lambda n: n / 10))
filters = st.builds(
    lambda status, label, decision, pair: OutcomeFilter(status, label, decision, *pair),
    some | st.sampled_from(["ok", "missing", "failed"]),
    some | st.sampled_from([*LABELS, "a label that none has"]),
    some | st.sampled_from(DECISIONS),
    bounds.filter(lambda pair: None in pair or pair[0] <= pair[1]),
)


@pytest.fixture
def filled(store: ResultStore, bridge: Bridge) -> list[Outcome]:
    """What a job's eight chunks hold, in the order of ids."""
    return sorted(fill(bridge, store, new_job_id(), num_chunks=8).values(), key=lambda row: row.id)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=filters, limit=st.sampled_from([7, MAX_PAGE]))
def test_filters_bring_all_that_pass_and_nothing_else(
    store: ResultStore, bridge: Bridge, filled: list[Outcome], where: OutcomeFilter, limit: int
) -> None:
    found = read_outcomes(bridge, store, filled[0].job_id, where, limit)
    assert found == [row for row in filled if passes(row, where)]


# Many at once


def test_several_tasks_may_write_through_one_store(store: ResultStore, bridge: Bridge) -> None:
    job_id = new_job_id()

    async def write() -> None:
        await asyncio.gather(*(store.put_chunk(*chunk_of(job_id, number % 8)) for number in range(16)))

    bridge.run(write())
    assert totals(bridge, store, job_id).num_images == 40
    assert len(read_outcomes(bridge, store, job_id)) == 40


def test_several_threads_may_write_through_one_bridge(store: ResultStore, bridge: Bridge) -> None:
    job_id = new_job_id()
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda number: bridge.run(store.put_chunk(*chunk_of(job_id, number))), range(12)))
    assert [chunk.chunk for chunk in bridge.collect(store.chunks(job_id))] == list(range(12))


def test_several_processes_may_write_different_chunks_and_the_same(store: ResultStore, bridge: Bridge) -> None:
    job_id = new_job_id()
    spawn = multiprocessing.get_context("spawn")
    shares = [range(0, 30), range(20, 50), range(40, 60)]
    workers = [spawn.Process(target=write_chunks, args=(store, job_id, share)) for share in shares]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    counted = totals(bridge, store, job_id)
    outcomes = read_outcomes(bridge, store, job_id)
    assert (counted.num_chunks, counted.num_images) == (60, 300)
    assert len({row.id for row in outcomes}) == len(outcomes) == 300
    assert counted.statuses == Counter(row.status for row in outcomes)
    assert counted.labels == Counter(row.label for row in outcomes if row.label)
    assert counted.decisions == Counter(row.decision for row in outcomes if row.decision)


# A time to live


def test_a_chunk_and_its_outcomes_go_when_their_time_is_over_and_others_stay(
    store: ResultStore, bridge: Bridge
) -> None:
    job_id = new_job_id()
    bridge.run(store.put_job(job(job_id)))
    chunk, outcomes = chunk_of(job_id, 0)
    bridge.run(store.put_chunk(*chunk_of(job_id, 1)))
    written = datetime.now(UTC) - timedelta(seconds=2 * BRIEF_S)  # which a service does not believe
    bridge.run(store.put_chunk(chunk.model_copy(update={"ttl_s": BRIEF_S, "created_at": written}), outcomes))
    if isinstance(store, CosmosStore):
        lives = [one.get("ttl") for one in documents_of(store.address, job_id)]
        assert Counter(lives) == {BRIEF_S: len(outcomes) + 1, None: 6}
        if not store.address.url.startswith("https://"):
            return  # the emulator keeps a time to live and does not heed it
    until = time.monotonic() + 90
    while len(read_outcomes(bridge, store, job_id)) > 5:
        assert time.monotonic() < until, "outcomes outlive their time"
        time.sleep(1)
    assert [one.chunk for one in bridge.collect(store.chunks(job_id))] == [1]
    assert {one.id for one in read_outcomes(bridge, store, job_id)}.isdisjoint(one.id for one in outcomes)
    assert bridge.run(store.get_job(job_id))


def documents_of(address: CosmosAddress, job_id: str) -> list[dict[str, Any]]:
    """What lies there of a job's outcomes and chunks, read past the store."""
    credential = address.key() or DefaultAzureCredential()
    with CosmosClient(address.url, credential) as client:
        container = client.get_database_client(address.database).get_container_client(OUTCOMES)
        assert container.read()["defaultTtl"] == -1
        query, parameters = "SELECT * FROM c WHERE c.job_id = @job", [{"name": "@job", "value": job_id}]
        return list(container.query_items(query, parameters=parameters, enable_cross_partition_query=True))


# Its life


def test_a_store_in_use_travels_to_another_process_without_its_connection(store: ResultStore, bridge: Bridge) -> None:
    job_id = new_job_id()
    written = fill(bridge, store, job_id, num_chunks=1)
    copy: ResultStore = pickle.loads(pickle.dumps(store))  # noqa: S301 - of our own making
    assert [row.id for row in read_outcomes(bridge, copy, job_id)] == sorted(written)
    bridge.run(copy.close())


def test_a_closed_store_opens_again_when_it_is_used(store: ResultStore, bridge: Bridge) -> None:
    job_id = new_job_id()
    bridge.run(store.close())
    written = fill(bridge, store, job_id, num_chunks=1)
    bridge.run(store.close())
    bridge.run(store.close())
    assert [row.id for row in read_outcomes(bridge, store, job_id)] == sorted(written)
