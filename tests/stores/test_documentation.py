"""docs/store.md says which fields the documents have."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from glint.core.endpoint import Endpoint
from glint.core.job import Chunk, Job
from glint.core.label_event import LabelEvent
from glint.core.outcome import Outcome
from glint.core.submission import Submission

STORE = Path(__file__).parents[2] / "docs" / "store.md"


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("outcome", Outcome),
        ("chunk", Chunk),
        ("job", Job),
        ("endpoint", Endpoint),
        ("submission", Submission),
        ("label event", LabelEvent),
    ],
)
def test_every_field_of_every_document_is_written_down(name: str, model: type[BaseModel]) -> None:
    fields = STORE.read_text().partition("**The fields.**")[2]
    (row,) = [line for line in fields.splitlines() if line.startswith(f"| {name} |")]
    missing = [field for field in model.model_fields if f"`{field}`" not in row]
    assert missing in ([], ["id"])  # that of most documents stands in the table of keys
