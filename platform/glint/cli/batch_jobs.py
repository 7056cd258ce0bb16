"""glint batch submit, status, watch, logs, cancel, retry: jobs of a server, by its HTTP API."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glint.cli.options import AsJson
from glint.cli.remote import DEFAULT_URL, Url, connect

if TYPE_CHECKING:
    from glint.serving.batch_answers import JobProgress

JobId = Annotated[str, typer.Argument(help="a job's id")]
Options = Annotated[list[str] | None, typer.Option("--option", help="NAME=VALUE, over those of the deployment")]

FAILED = 1
"""Exit code of a watch whose job did not complete."""


WHAT = "what has no outcome yet; with it the mini-batches, of up to 99 images, in which any did not end ok; or all"


class What(StrEnum):
    """What is scored again."""

    missing = "missing"
    failed = "failed"
    all = "all"


def submit(
    endpoint: Annotated[str, typer.Argument(help="name of a batch endpoint")],
    input: Annotated[
        list[str], typer.Option(help="az://CONTAINER/PREFIX, folder, manifest, .csv or .jsonl; several: the images")
    ],
    deployment: Annotated[str | None, typer.Option(help="default: the endpoint's default")] = None,
    option: Options = None,
    priority: Annotated[int, typer.Option(help="of those that wait, higher ones start first")] = 0,
    max_attempts: Annotated[int, typer.Option(min=1, help="drivers that may die before the job fails")] = 3,
    webhook: Annotated[str | None, typer.Option(help="told when the job ends; its host must be allowed")] = None,
    key: Annotated[str | None, typer.Option(help="the same key makes the same job, however often it is sent")] = None,
    url: Url = DEFAULT_URL,
    json: AsJson = False,
) -> None:
    """Submit a job to a batch endpoint; it runs on the server.

    Examples:

        glint batch submit boards --input az://images/line-4

        glint batch submit boards --input /data/night.csv --deployment candidate --option top_k=3 --key night-12
    """
    from glint.cli.console import emit, next_step
    from glint.cli.tables import fields

    with connect(url) as client:
        job = client.batch.submit(
            endpoint,
            input[0] if len(input) == 1 else input,
            deployment=deployment,
            options=options_of(option),
            priority=priority,
            max_attempts=max_attempts,
            webhook=webhook,
            idempotency_key=key,
        )
    emit(job, json, fields(job), next_step(f"batch watch {job.id}{where(url)}"))


def status(
    job: Annotated[str | None, typer.Argument(help="a job's id; without one the newest jobs are listed")] = None,
    endpoint: Annotated[str | None, typer.Option(help="only jobs of this endpoint")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="at most so many jobs")] = 20,
    errors: Annotated[bool, typer.Option("--errors", help="what went wrong, by reason")] = False,
    url: Url = DEFAULT_URL,
    json: AsJson = False,
) -> None:
    """Show the jobs of a server, or how far one is.

    Examples:

        glint batch status

        glint batch status 3fa4bc0d1e2f5a6b --errors
    """
    from glint.cli.console import emit
    from glint.cli.tables import fields, rows
    from glint.serving.batch_answers import Jobs

    with connect(url) as client:
        if job is None:
            found = Jobs(jobs=tuple(client.batch.jobs(endpoint, limit)), cursor=None)
            names = ("id", "status", "endpoint", "deployment", "attempt", "created_at")
            emit(found, json, rows(names, [[_shown(getattr(one, name)) for name in names] for one in found.jobs]))
        elif errors:
            groups = client.batch.errors(job)
            shown = ("count", "status", "reason", "message")
            emit(groups, json, rows(shown, [[getattr(one, name) for name in shown] for one in groups.groups]))
        else:
            progress = client.batch.progress(job)
            emit(progress, json, fields(progress, "bottleneck"), *_said(progress, client.batch.job(job).error))


def watch(job: JobId, url: Url = DEFAULT_URL, json: AsJson = False) -> None:
    """Follow a job until it has ended; exits with 0 when it is completed, otherwise with 1.

    Examples:

        glint batch watch 3fa4bc0d1e2f5a6b
    """
    from glint.cli.console import emit, next_step, progress
    from glint.cli.tables import fields

    with connect(url) as client, progress() as told:
        begun = False
        for last in client.batch.watch(job):
            if last.num_images is not None and not begun:
                told.begin("scoring", last.num_images, "images")
                begun = True
            told.update(last.done)
        said = _said(last, client.batch.job(job).error)
    emit(last, json, fields(last, "bottleneck"), *said, next_step(f"batch results {job} --url {url}"))
    if last.status != "completed":
        raise typer.Exit(FAILED)


def logs(job: JobId, url: Url = DEFAULT_URL, json: AsJson = False) -> None:
    """Show what the driver of a job has printed.

    Examples:

        glint batch logs 3fa4bc0d1e2f5a6b
    """
    from rich.text import Text

    from glint.cli.console import emit

    with connect(url) as client:
        found = client.batch.logs(job)
    emit(found, json, Text(found.text))


def cancel(job: JobId, url: Url = DEFAULT_URL, json: AsJson = False) -> None:
    """Stop a job; what was done stays and can be read.

    Examples:

        glint batch cancel 3fa4bc0d1e2f5a6b
    """
    from glint.cli.console import emit

    with connect(url) as client:
        found = client.batch.cancel(job)
    emit(found, json, f"job {found.id} is {found.status}")


def retry(
    job: JobId,
    what: Annotated[What, typer.Option(help=WHAT)] = What.missing,
    option: Options = None,
    url: Url = DEFAULT_URL,
    json: AsJson = False,
) -> None:
    """Go on with a job that has ended, by the same model and input.

    What was done already is scored again a mini-batch at a time, the images in it that ended ok too.

    Examples:

        glint batch retry 3fa4bc0d1e2f5a6b

        glint batch retry 3fa4bc0d1e2f5a6b --what failed
    """
    from glint.cli.console import emit, next_step

    with connect(url) as client:
        found = client.batch.retry(job, what.value, options_of(option))
    emit(found, json, f"job {found.id} is {found.status}", next_step(f"batch watch {found.id}{where(url)}"))


def delete(job: JobId, url: Url = DEFAULT_URL, json: AsJson = False) -> None:
    """Delete a job that has ended, with its outcomes.

    Examples:

        glint batch delete 3fa4bc0d1e2f5a6b
    """
    from pydantic import BaseModel

    from glint.cli.console import emit

    class Deleted(BaseModel):
        job: str

    with connect(url) as client:
        client.batch.delete_job(job)
    emit(Deleted(job=job), json, f"job {job} and its outcomes are gone")


def _shown(value: object) -> str:
    """A cell of a table; times to the second, or the table would not fit."""
    return f"{value:%Y-%m-%d %H:%M:%S}" if isinstance(value, datetime) else str(value)


def _said(progress: JobProgress, error: str | None) -> list[str]:
    """Lines about a job's end, where it has one."""
    line = progress.bottleneck.line if progress.bottleneck else None
    return [said for said in (error, line) if said]


def where(url: str) -> str:
    """What a further command needs to find the same server."""
    return "" if url == DEFAULT_URL else f" --url {url}"


def options_of(given: list[str] | None) -> dict[str, Any]:
    """NAME=VALUE, the value as JSON where it is any, as text otherwise."""
    import json
    import math

    from glint.core.errors import GlintError

    found: dict[str, Any] = {}
    for entry in given or []:
        name, equals, value = entry.partition("=")
        if not name or not equals:
            raise GlintError(f"--option {entry!r} must be NAME=VALUE")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
        if isinstance(found[name], float) and not math.isfinite(found[name]):
            raise GlintError(f"--option {entry!r} must be a finite number")
    return found
