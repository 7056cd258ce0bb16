"""Documents of the books in Azure Cosmos DB, and replacing one only while nobody else has changed it."""

from __future__ import annotations

from typing import Any

from azure.core import MatchConditions
from azure.cosmos.aio import ContainerProxy
from azure.cosmos.exceptions import CosmosHttpResponseError

from glint.adapters.cosmos_client import NOT_FOUND
from glint.adapters.cosmos_schema import document_pk, job_key
from glint.core.errors import ConflictError
from glint.core.stores import ABSENT, Document

CONFLICT, PRECONDITION_FAILED = 409, 412


async def put_item(container: ContainerProxy, item: dict[str, Any], etag: str | None, what: str) -> str:
    """Upsert; with an etag replace only the one that has it, with ABSENT create. Raises ConflictError otherwise."""
    try:
        if etag is None:
            written = await container.upsert_item(item, no_response=False)
        elif etag == ABSENT:
            written = await container.create_item(item, no_response=False)
        else:
            condition: Any = {"etag": etag, "match_condition": MatchConditions.IfNotModified}
            written = await container.replace_item(item["id"], item, no_response=False, **condition)
    except CosmosHttpResponseError as error:
        if etag is not None and error.status_code in (CONFLICT, PRECONDITION_FAILED, NOT_FOUND):
            raise ConflictError(f"{what} was changed meanwhile") from None
        raise
    return str(written["_etag"])


def record_of(document: Document) -> dict[str, Any]:
    """A document of the books as the service keeps it."""
    return {
        "id": job_key(document.id),
        "pk": document_pk(document.kind),
        "name": document.id,
        "kind": document.kind,
        "sort_key": document.sort_key,
        "group": document.group,
        "open": document.open,
        "body": dict(document.body),
    }


def document_of(record: dict[str, Any]) -> Document:
    """And back."""
    return Document(record["kind"], record["name"], record["sort_key"], record["body"], record["group"], record["open"])
