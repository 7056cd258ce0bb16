"""Who said what an image shows, and when: labels that people give or correct, kept as they were said."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, Field


class LabelEvent(BaseModel):
    """One person's word on one image, never changed: a correction is a further event, and the last one counts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(default_factory=lambda: uuid.uuid4().hex)
    uri: str
    etag: str | None = Field(default=None, description="of the image as that person saw it")
    labels: tuple[str, ...]
    author: str
    job_id: str | None = Field(default=None, description="the job whose outcome was corrected")
    note: str | None = None
    created_at: datetime = Field(default_factory=lambda: datetime.now(UTC))

    @property
    def sort_key(self) -> str:
        """What events are ordered by: the time in UTC, then the id, as text of a fixed width."""
        return sort_key(self.created_at, self.id)


def sort_key(created_at: datetime, id: str) -> str:
    """Time in UTC to the microsecond, then the id: text that sorts by time and is never the same twice."""
    return f"{created_at.astimezone(UTC).isoformat(timespec='microseconds')}|{id}"
