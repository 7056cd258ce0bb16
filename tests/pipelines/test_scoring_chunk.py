"""What is known of the rows of a chunk, whatever its scoring process does."""

import json
import time

import numpy as np
import pytest

from glint.core.job_options import JobOptions
from glint.pipelines.in_flight import WAITING, InFlight
from glint.pipelines.scoring_chunk import MAX_OVERRUNS, AskedChunk

NUM_ROWS = 9
IMAGE_S = 9.0
"""Of a process before it dies: less than an image may take."""
OPTIONS = JobOptions(mini_batch_size=NUM_ROWS, item_timeout_s=10, mini_batch_timeout_s=20)


def fresh() -> AskedChunk:
    return AskedChunk(0, NUM_ROWS, OPTIONS, 0, InFlight(np.full(NUM_ROWS, WAITING)))


def asked_again(chunk: AskedChunk, *in_flight: int) -> None:
    """A new process has the chunk, and these of its rows in flight."""
    chunk.returned()
    chunk.out_since = 0.0
    for row in in_flight:
        chunk.rows.begin(row)


def test_who_was_suspected_once_is_scored_alone_until_the_chunk_is_done() -> None:
    chunk = fresh()
    asked_again(chunk, 0, 1)
    chunk.died("died")
    asked_again(chunk, 0)
    chunk.rows.end(0)
    assert chunk.doubtful
    asked_again(chunk, 0, 1)
    for row in (0, 1):
        chunk.rows.end(row)
    assert not chunk.doubtful
    asked_again(chunk, 2, 3)
    chunk.died("died")
    assert json.loads(chunk.question())[2:] == [[0, 1, 2, 3], {}]


def test_images_that_are_bad_for_each_other_are_soon_all_scored_alone() -> None:
    chunk = fresh()
    for row in range(3):
        asked_again(chunk, row)
        assert chunk.overran(time.monotonic() + OPTIONS.item_timeout_s + 1)
    assert json.loads(chunk.question())[2:] == [list(range(NUM_ROWS)), {}]


def test_a_process_that_dies_whatever_it_is_given_leaves_a_verdict_for_every_row() -> None:
    chunk, lives = fresh(), 0
    while len(chunk.verdicts) < NUM_ROWS:
        lives += 1
        alone = sorted(chunk.suspects)[:1]
        asked_again(chunk, *(alone or [row for row in range(NUM_ROWS) if row not in chunk.verdicts][:4]))
        chunk.died("died by SIGSEGV")
    assert lives == NUM_ROWS + 3
    assert chunk.verdicts[0] == ("failed", "process_died", "the process that scored this image alone died by SIGSEGV")
    assert json.loads(chunk.question())[2] == []


def test_the_time_of_a_mini_batch_counts_over_all_the_processes_that_had_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    chunk, overruns = fresh(), 0
    while len(chunk.verdicts) < NUM_ROWS and now < 1000:
        chunk.returned()
        chunk.out_since = now
        alone = sorted(chunk.suspects)[:1]
        for row in alone or [row for row in range(NUM_ROWS) if row not in chunk.verdicts][:1]:
            chunk.rows.begin(row)
        now += IMAGE_S
        if chunk.overran(now):
            overruns += 1
        else:
            chunk.died("died")
    assert overruns <= MAX_OVERRUNS
    assert now <= MAX_OVERRUNS * (OPTIONS.mini_batch_timeout_s + IMAGE_S), "each is noticed an image late at most"
