"""Outcomes of a job as a table, CSV or Parquet."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from glint.cli.console import stderr, stdout
from glint.cli.tables import rows
from glint.core.errors import GlintError
from glint.core.job import Job, Totals
from glint.core.outcome import Outcome, counted, outcome_row
from glint.core.outcome_files import csv_lines, write_parquet
from glint.core.stores import Bridge, OutcomeFilter, ResultStore
from glint.core.whole import whole

if TYPE_CHECKING:
    from glint.client import Client

PAGE = 1000
FILES = {".csv": "csv", ".parquet": "parquet"}
TABLE_ROWS = 50
SHOWN = ("status", "label", "confidence", "decision", "error_type", "uri")


def filter_of(
    status: str | None, label: str | None, decision: str | None, low: float | None, high: float | None
) -> OutcomeFilter:
    """The options as a filter; raises GlintError naming the option that is wrong."""
    try:
        return OutcomeFilter(status, label, decision, low, high)
    except GlintError as error:
        said = str(error).replace("confidence must", "min-confidence and --max-confidence must", 1)
        raise GlintError(f"--{said}") from None


def show_outcomes(
    store: ResultStore, job_id: str, where: OutcomeFilter, form: str, out: Path | None, limit: int | None, as_json: bool
) -> None:
    """Write the outcomes of a job that pass the filter; raises GlintError for an unknown job or an --out amiss."""
    form = _form(form, out)
    bridge = Bridge()
    try:
        job = bridge.run(store.get_job(job_id)) or _no_job(bridge, store, job_id)
        found = _outcomes(bridge, store, job_id, where)
        if out:
            _tell_written(_write_file(islice(found, limit), form, out), out, as_json)
        elif as_json:
            _write_json(job, _totals(bridge, store, job_id), islice(found, limit))
        elif form == "table":
            _print_table(_totals(bridge, store, job_id), list(islice(found, limit or TABLE_ROWS)), where)
        else:
            stderr.print(f"{_write_csv(islice(found, limit), sys.stdout):,} outcomes")
    finally:
        bridge.run(store.close())
        bridge.close()


def show_remote_outcomes(
    client: Client, job_id: str, where: OutcomeFilter, form: str, out: Path | None, limit: int | None, as_json: bool
) -> None:
    """The same from a server; its totals are the job's progress."""
    form = _form(form, out)
    found = client.batch.results(job_id, **vars(where))
    if out:
        _tell_written(_write_file(islice(found, limit), form, out), out, as_json)
    elif as_json:
        outcomes = [outcome.model_dump(mode="json") for outcome in islice(found, limit)]
        document = {"job": client.batch.job(job_id).model_dump(mode="json"), "outcomes": outcomes}
        sys.stdout.write(json.dumps(document) + "\n")
    elif form == "table":
        done = client.batch.progress(job_id)
        totals = Totals(num_images=done.done, statuses=Counter(done.statuses))
        totals.labels, totals.decisions = Counter(done.labels), Counter(done.decisions)
        _print_table(totals, list(islice(found, limit or TABLE_ROWS)), where)
    else:
        stderr.print(f"{_write_csv(islice(found, limit), sys.stdout):,} outcomes")


def _form(form: str, out: Path | None) -> str:
    """What is written: a file without a --format is of the kind that its name ends in."""
    if out is None:
        if form == "parquet":
            raise GlintError("--format parquet needs --out FILE")
        return form
    if form != "table":
        return form
    if out.suffix not in FILES:
        raise GlintError(f"--out {out} must end in {' or '.join(FILES)}, or --format say what it is to be")
    return FILES[out.suffix]


def _tell_written(num: int, out: Path, as_json: bool) -> None:
    stderr.print(f"{num:,} outcomes -> {out}")
    if as_json:
        sys.stdout.write(json.dumps({"num_outcomes": num, "file": str(out)}) + "\n")


def _no_job(bridge: Bridge, store: ResultStore, job_id: str) -> Job:
    known = ", ".join(job.id for job in bridge.run(store.jobs(limit=10))) or "none yet; glint batch run makes one"
    raise GlintError(f"there is no job {job_id!r}; the newest are: {known}")


def _outcomes(bridge: Bridge, store: ResultStore, job_id: str, where: OutcomeFilter) -> Iterator[Outcome]:
    cursor = None
    while True:
        page = bridge.run(store.page(job_id, where, cursor, PAGE))
        yield from page.outcomes
        cursor = page.cursor
        if cursor is None:
            return


def _totals(bridge: Bridge, store: ResultStore, job_id: str) -> Totals:
    totals = Totals()
    for chunk in bridge.collect(store.chunks(job_id)):
        totals.add(chunk)
    return totals


def _write_json(job: Job, totals: Totals, outcomes: Iterator[Outcome]) -> None:
    document = {
        "job": job.model_dump(mode="json"),
        "totals": totals.model_dump(mode="json"),
        "outcomes": [outcome.model_dump(mode="json") for outcome in outcomes],
    }
    sys.stdout.write(json.dumps(document) + "\n")


def _print_table(totals: Totals, outcomes: list[Outcome], where: OutcomeFilter) -> None:
    lines = [[outcome_row(outcome)[name] for name in SHOWN] for outcome in outcomes]
    stdout.print(rows(SHOWN, lines))
    every = _num_passing(totals, where)
    shown = f"{len(outcomes):,}" + ("" if every is None else f" of {every:,}")
    stdout.print(f"{shown} outcomes shown; the job has {counted(totals.statuses) or 'none yet'}")


def _num_passing(totals: Totals, where: OutcomeFilter) -> int | None:
    """How many outcomes of the job pass the filter, where its totals tell."""
    counts = {"status": totals.statuses, "label": totals.labels, "decision": totals.decisions}
    asked = [name for name, value in vars(where).items() if value is not None]
    if not asked:
        return totals.num_images
    return counts[asked[0]][getattr(where, asked[0])] if len(asked) == 1 and asked[0] in counts else None


def _write_file(outcomes: Iterator[Outcome], form: str, out: Path) -> int:
    with _whole(out) as partial:
        if form == "parquet":
            return asyncio.run(write_parquet(partial, _pages(outcomes)))
        with partial.open("w", encoding="utf-8", newline="") as file:
            return _write_csv(outcomes, file)


def _write_csv(outcomes: Iterator[Outcome], file: TextIO) -> int:
    num = 0

    async def counted() -> AsyncIterator[list[Outcome]]:
        nonlocal num
        async for page in _pages(outcomes):
            num += len(page)
            yield page

    async def write() -> None:
        async for block in csv_lines(counted()):
            file.write(block)

    asyncio.run(write())
    return num


async def _pages(outcomes: Iterator[Outcome]) -> AsyncIterator[list[Outcome]]:
    while page := list(islice(outcomes, PAGE)):
        yield page


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """core.whole's, for a path that the user has named."""
    try:
        with whole(path) as partial:
            yield partial
    except OSError as error:
        raise GlintError(f"--out {path} cannot be written: {error.strerror}") from None
