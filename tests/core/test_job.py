"""Jobs and chunks: identity, number, counts and totals."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glint.core.job import CHUNK_ROWS, Chunk, Totals, job_id, num_chunks, summarise
from glint.core.outcome import DECISIONS, STATUSES, ModelRef, Outcome

MODEL = ModelRef(name=None, version=None, bundle="b1", policy="p1", engine="torch")


@st.composite
def outcomes(draw: st.DrawFn, max_size: int = 8) -> list[Outcome]:
    rows = []
    for number in range(draw(st.integers(0, max_size))):
        status = draw(st.sampled_from(STATUSES))
        scored = status == "ok"
        rows.append(
            Outcome(
                id=str(number),
                job_id="j",
                uri=str(number),
                etag=None,
                model=MODEL,
                status=status,
                labels=(draw(st.sampled_from(["good", "open"])), "second") if scored else (),
                confidence=0.5 if scored else None,
                decision=draw(st.sampled_from(DECISIONS)) if scored else None,
            )
        )
    return rows


def test_the_same_model_input_and_options_are_the_same_job() -> None:
    assert job_id("b", "i", {"top_k": 5, "only_new": True}) == job_id("b", "i", {"only_new": True, "top_k": 5})


def test_another_model_input_or_option_is_another_job() -> None:
    ids = [job_id("b", "i", {"top_k": 5}), job_id("c", "i", {"top_k": 5}), job_id("b", "j", {"top_k": 5})]
    ids += [job_id("b", "i", {"top_k": 6}), job_id("b", "i", {}), job_id("bi", "", {"top_k": 5})]
    assert len(set(ids)) == len(ids)


def test_job_ids_hold_nothing_that_a_store_would_refuse() -> None:
    assert set(job_id("b/|", "i\\?#", {"x": "/"})) <= set("0123456789abcdef")


@pytest.mark.parametrize(
    ("num_images", "expected"), [(0, 0), (1, 1), (CHUNK_ROWS, 1), (CHUNK_ROWS + 1, 2), (CHUNK_ROWS * 10, 10)]
)
def test_chunks_are_as_many_as_hold_the_images(num_images: int, expected: int) -> None:
    assert num_chunks(num_images) == expected


def test_a_chunk_and_its_document_fill_one_transactional_batch() -> None:
    assert CHUNK_ROWS + 1 == 100


@given(outcomes())
def test_a_chunk_document_counts_each_outcome_once(rows: list[Outcome]) -> None:
    chunk = summarise("j", 3, iter(rows), {"read": 0.5})
    assert (chunk.job_id, chunk.chunk, chunk.timings_s) == ("j", 3, {"read": 0.5})
    assert chunk.num_images == len(rows) == sum(chunk.statuses.values())
    scored = chunk.statuses.get("ok", 0)
    assert sum(chunk.labels.values()) == sum(chunk.decisions.values()) == scored
    assert "second" not in chunk.labels


@given(st.lists(outcomes(max_size=4), max_size=4))
def test_totals_are_what_one_count_of_all_outcomes_would_be(chunks: list[list[Outcome]]) -> None:
    totals = Totals()
    for number, rows in enumerate(chunks):
        totals.add(summarise("j", number, rows, {}))
    everything = [row for rows in chunks for row in rows]
    assert (totals.num_chunks, totals.num_images) == (len(chunks), len(everything))
    assert totals.statuses == Counter(row.status for row in everything)
    assert totals.labels == Counter(row.label for row in everything if row.label)
    assert totals.decisions == Counter(row.decision for row in everything if row.decision)


def test_totals_start_at_nothing_each_time() -> None:
    first = Totals()
    first.add(Chunk(job_id="j", chunk=0, num_images=1, statuses={"ok": 1}, labels={"good": 1}, decisions={}))
    assert Totals() == Totals(num_chunks=0, num_images=0)
    assert not Totals().statuses
