"""How the result store lies in Azure Cosmos DB: containers, what is indexed, and records as documents."""

from __future__ import annotations

import hashlib
from typing import Any

from pydantic import BaseModel

from glint.core.outcome import Outcome
from glint.core.stores import OutcomeFilter

OUTCOMES, BOOKS = "outcomes", "books"
"""The containers: outcomes with their chunks; jobs, further documents and label events. Both are partitioned by /pk."""
JOBS_PK = "jobs"
INDEXED = {
    OUTCOMES: ("pk", "kind", "status", "label", "decision", "confidence", "chunk"),
    BOOKS: ("pk", "sort_key", "uri", "group", "open"),
}
"""The fields that queries name. `id` is always indexed; every further index would be paid for with each write."""


def indexing_policy(container: str) -> dict[str, Any]:
    """Index the fields that queries name, and nothing else."""
    return {
        "indexingMode": "consistent",
        "automatic": True,
        "includedPaths": [{"path": f"/{name}/?"} for name in INDEXED[container]],
        "excludedPaths": [{"path": "/*"}, {"path": '/"_etag"/?'}],
    }


def document_pk(kind: str) -> str:
    """Where the documents of a kind lie, beside jobs and labels."""
    return f"documents|{kind}"


def job_key(job_id: str) -> str:
    """The document id of a job or of what has any other name: a hash, for Cosmos refuses some characters."""
    return hashlib.sha256(job_id.encode()).hexdigest()[:40]


def outcome_document(outcome: Outcome) -> dict[str, Any]:
    """An outcome as a document; what filters ask for stands at its top."""
    document = outcome.model_dump(mode="json", exclude_defaults=True)
    return {**document, "label": outcome.label} if outcome.labels else document


def fields_of(document: dict[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """What of a document belongs to the model; the rest is the store's and the service's."""
    return {name: value for name, value in document.items() if name in model.model_fields}


def conditions_of(where: OutcomeFilter) -> tuple[str, dict[str, Any]]:
    """A filter as SQL to follow a WHERE clause, with its parameters."""
    tests = {
        "status =": where.status,
        "label =": where.label,
        "decision =": where.decision,
        "confidence >=": where.min_confidence,
        "confidence <=": where.max_confidence,
    }
    wanted = [(test, value) for test, value in tests.items() if value is not None]
    conditions = "".join(f" AND c.{test} @f{number}" for number, (test, _) in enumerate(wanted))
    return conditions, {f"@f{number}": value for number, (_, value) in enumerate(wanted)}
