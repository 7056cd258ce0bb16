"""The books of batch endpoints: endpoints and submissions, as documents of whichever store there is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from glint.core.endpoint import Endpoint
from glint.core.errors import ConflictError
from glint.core.label_event import sort_key
from glint.core.stores import MAX_PAGE, Document, DocumentStore
from glint.core.submission import Submission

ENDPOINT, SUBMISSION = "endpoint", "submission"
ATTEMPTS = 20
"""How often a change is tried again that others keep overtaking."""


@dataclass(frozen=True)
class Books:
    """Endpoints and submissions in a store. All that changes one does so by its etag, or raises ConflictError."""

    store: DocumentStore

    async def put_endpoint(self, endpoint: Endpoint, etag: str | None = None) -> str:
        """Insert or replace by name, with an etag only the one that has it, with ABSENT only a new one."""
        body = endpoint.model_dump(mode="json")
        return await self.store.put_document(Document(ENDPOINT, endpoint.name, endpoint.name, body), etag)

    async def endpoint(self, name: str) -> tuple[Endpoint, str] | None:
        """The endpoint and its etag."""
        found = await self.store.get_document(ENDPOINT, name)
        return (Endpoint.model_validate(found[0].body), found[1]) if found else None

    async def endpoints(self) -> list[Endpoint]:
        """All of them, by name; a thousand at most."""
        page = await self.store.documents(ENDPOINT, limit=MAX_PAGE)
        return [Endpoint.model_validate(one.body) for one in reversed(page.documents)]

    async def delete_endpoint(self, name: str) -> None:
        """Take it away; its jobs stay."""
        await self.store.delete_document(ENDPOINT, name)

    async def put_submission(self, submission: Submission, etag: str | None = None) -> str:
        """Insert or replace by id, with an etag only the one that has it, with ABSENT only a new one."""
        key = sort_key(submission.created_at, submission.id)
        body = submission.model_dump(mode="json")
        document = Document(SUBMISSION, submission.id, key, body, submission.endpoint, submission.open)
        return await self.store.put_document(document, etag)

    async def submission(self, id: str) -> tuple[Submission, str] | None:
        """The submission and its etag."""
        found = await self.store.get_document(SUBMISSION, id)
        return (Submission.model_validate(found[0].body), found[1]) if found else None

    async def submissions(
        self, endpoint: str | None = None, cursor: str | None = None, limit: int = 100
    ) -> tuple[list[Submission], str | None]:
        """A page of all submissions, or of an endpoint's, the newest first, and the cursor of the next page."""
        page = await self.store.documents(SUBMISSION, endpoint, cursor=cursor, limit=limit)
        return [Submission.model_validate(one.body) for one in page.documents], page.cursor

    async def open_submissions(self) -> list[Submission]:
        """Those that a supervisor has something to do with."""
        found: list[Submission] = []
        cursor = None
        while True:
            page = await self.store.documents(SUBMISSION, open=True, cursor=cursor, limit=MAX_PAGE)
            found += [Submission.model_validate(one.body) for one in page.documents]
            cursor = page.cursor
            if cursor is None:
                return found

    async def delete_submission(self, id: str) -> None:
        """Take it away."""
        await self.store.delete_document(SUBMISSION, id)

    async def change(self, id: str, to: Callable[[Submission], Submission | None]) -> Submission | None:
        """Replace a submission by what `to` makes of it, however often others are quicker.

        `to` is asked again on each of them, and answers None to leave it. Returns the submission as it stands then,
        None where there is none.
        """
        for attempt in range(ATTEMPTS):
            found = await self.submission(id)
            if found is None:
                return None
            changed = to(found[0])
            if changed is None:
                return found[0]
            try:
                await self.put_submission(changed, found[1])
            except ConflictError:
                if attempt + 1 == ATTEMPTS:
                    raise
            else:
                return changed
        raise AssertionError("unreachable")
