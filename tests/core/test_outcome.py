"""Outcomes: their ids, what stands for a bad image, and their rows in a table."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from glint.core.errors import ImageError
from glint.core.outcome import (
    STATUSES,
    ModelRef,
    Outcome,
    OutcomeError,
    Prediction,
    Score,
    counted,
    failed,
    outcome_id,
    outcome_row,
)

MODEL = ModelRef(name="boards", version="3", bundle="b1", policy="p1", engine="openvino-int8")

# Short texts of the signs that could pass for a border between two parts.
part = st.text(alphabet='ab\0\x1f|,;:/\\"[] \n', max_size=6) | st.text()
keys = st.tuples(part, part, st.none() | part)


def outcome(**changes: Any) -> Outcome:
    values: dict[str, Any] = {
        "id": "1",
        "job_id": "j",
        "uri": "az://boards/1.jpg",
        "etag": "e",
        "model": MODEL,
        "status": "ok",
        "labels": ("open",),
        "confidence": 0.75,
        "decision": "reject",
        "group": "lot-1",
    }
    return Outcome(**values | changes)


@given(keys, keys)
@example(("j", "a\0b", "c"), ("j", "a", "b\0c"))
@example(("j", "a", None), ("j", "a", ""))
@example(("j", 'a", "b', None), ("j", "a", "b"))
def test_ids_differ_wherever_job_uri_or_etag_do(
    one: tuple[str, str, str | None], other: tuple[str, str, str | None]
) -> None:
    assert (outcome_id(*one) == outcome_id(*other)) == (one == other)


@given(part, part, st.none() | part)
def test_ids_hold_nothing_that_a_store_would_refuse(job_id: str, uri: str, etag: str | None) -> None:
    assert set(outcome_id(job_id, uri, etag)) <= set("0123456789abcdef")


def test_id_is_the_same_on_every_machine() -> None:
    assert outcome_id("j", "az://boards/plätze.jpg", "0x8D") == "687984c334320f38ac9533e503c5185fa5e153be"


@pytest.mark.parametrize("status", [status for status in STATUSES if status != "ok"])
def test_a_bad_image_becomes_a_prediction_that_says_why(status: str) -> None:
    prediction = failed(ImageError(status, "truncated", "the file ends early"))
    assert prediction.status == status
    assert prediction.error == OutcomeError(type="truncated", message="the file ends early")
    assert (prediction.label, prediction.confidence, prediction.decision) == (None, None, None)


def test_a_status_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValidationError):
        failed(ImageError("lost", "lost", "lost"))


@pytest.mark.parametrize("confidence", [-0.01, 1.01, float("nan")])
def test_confidence_outside_0_to_1_is_refused(confidence: float) -> None:
    with pytest.raises(ValidationError):
        Prediction(status="ok", labels=("open",), confidence=confidence)


def test_outcome_survives_json_whole() -> None:
    one = outcome(columns={"line": 7, "operator": "Zoë", "shift": None}, created_at=datetime(2026, 3, 1, tzinfo=UTC))
    assert Outcome.model_validate_json(one.model_dump_json()) == one


def test_row_of_a_scored_image_holds_what_a_table_shows() -> None:
    scores = (Score(label="open", confidence=0.75), Score(label="läuft", confidence=0.25))
    assert outcome_row(outcome(top_k=scores, columns={"line": 7, "operator": "Zoë"})) == {
        "uri": "az://boards/1.jpg",
        "etag": "e",
        "status": "ok",
        "label": "open",
        "confidence": 0.75,
        "top_k": '{"open": 0.75, "läuft": 0.25}',
        "decision": "reject",
        "error_type": None,
        "error_message": None,
        "group": "lot-1",
        "model_name": "boards",
        "model_version": "3",
        "bundle": "b1",
        "policy": "p1",
        "engine": "openvino-int8",
        "line": 7,
        "operator": "Zoë",
    }


def test_row_of_a_bad_image_holds_the_reason() -> None:
    error = OutcomeError(type="not_found", message="no such blob")
    row = outcome_row(outcome(status="missing", labels=(), confidence=None, decision=None, error=error))
    assert (row["status"], row["error_type"], row["error_message"]) == ("missing", "not_found", "no such blob")
    assert (row["label"], row["confidence"], row["top_k"], row["decision"]) == (None, None, None, None)


def test_row_joins_several_labels_and_tells_none_from_one() -> None:
    assert outcome_row(outcome(labels=("open", "short")))["label"] == "open, short"
    assert outcome_row(outcome(labels=()))["label"] is None


def test_row_keeps_further_columns_apart_from_the_fixed_ones_and_each_other() -> None:
    columns = {"status": "shipped", "column_status": "returned", "column_line": 1, "line": 2}
    row = outcome_row(outcome(columns=columns))
    assert row["status"] == "ok"
    assert row["column_status"] == "shipped"
    assert row["column_column_status"] == "returned"
    assert (row["column_column_line"], row["line"]) == (1, 2)


def test_row_writes_lists_and_the_like_as_json() -> None:
    columns = {"tags": ["a", {"b": 1.5}], "none": None, "sure": True, "taken": datetime(2026, 3, 1, tzinfo=UTC)}
    row = outcome_row(outcome(columns=columns))
    assert row["tags"] == '["a", {"b": 1.5}]'
    assert (row["none"], row["sure"], row["taken"]) == (None, True, '"2026-03-01 00:00:00+00:00"')


@given(st.dictionaries(st.text(), st.none() | st.integers() | st.text() | st.lists(st.integers())))
def test_row_has_a_column_for_every_further_one(columns: dict[str, Any]) -> None:
    assert len(outcome_row(outcome(columns=columns))) == len(outcome_row(outcome())) + len(columns)


def test_what_is_counted_is_told_with_the_most_frequent_first() -> None:
    assert counted({"missing": 1, "changed": 1200}) == "1,200 changed, 1 missing"
    assert counted({}) == ""
