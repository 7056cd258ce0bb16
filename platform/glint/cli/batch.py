"""glint batch: score many images, and read what became of them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from glint.cli import batch_jobs, endpoints
from glint.cli.options import AsJson, Model
from glint.core.job_options import JobOptions, job_options

UNFINISHED = 1
"""Exit code of a job that ended otherwise than completed."""

app = typer.Typer(help="Score many images; every one ends as exactly one outcome.", no_args_is_help=True)


for verb in (
    batch_jobs.submit,
    batch_jobs.status,
    batch_jobs.watch,
    batch_jobs.logs,
    batch_jobs.cancel,
    batch_jobs.retry,
    batch_jobs.delete,
):
    app.command()(verb)
app.add_typer(endpoints.app, name="endpoint")


class Format(StrEnum):
    """How results are written."""

    table = "table"
    csv = "csv"
    parquet = "parquet"


def _help(option: str) -> str:
    """What an option of a job is, with its default."""
    field = JobOptions.model_fields[option]
    text = field.description or ""
    return text if field.default in (None, False) else f"{text}; default: {field.default}"


@app.command()
def run(
    model: Model,
    input: Annotated[str, typer.Option(help="a manifest (.parquet; az:// too), a folder or az://CONTAINER/PREFIX")],
    job: Annotated[str | None, typer.Option(help="name of the job; default: from model, input and options")] = None,
    error_threshold: Annotated[str | None, typer.Option(metavar="N|N%", help=_help("error_threshold"))] = None,
    mini_batch_size: Annotated[int | None, typer.Option(help=_help("mini_batch_size"))] = None,
    concurrency: Annotated[int | None, typer.Option(help=_help("concurrency"))] = None,
    max_retries: Annotated[int | None, typer.Option(help=_help("max_retries"))] = None,
    item_timeout_s: Annotated[float | None, typer.Option(help=_help("item_timeout_s"))] = None,
    mini_batch_timeout_s: Annotated[float | None, typer.Option(help=_help("mini_batch_timeout_s"))] = None,
    decode: Annotated[str | None, typer.Option(metavar="auto|fused|apart", help=_help("decode"))] = None,
    ttl_days: Annotated[int | None, typer.Option(help=_help("ttl_days"))] = None,
    top_k: Annotated[int | None, typer.Option(help=_help("top_k"))] = None,
    engine: Annotated[str | None, typer.Option(help=_help("engine"))] = None,
    parquet: Annotated[bool | None, typer.Option("--parquet", help=_help("parquet"))] = None,
    json: AsJson = False,
) -> None:
    """Score the images of a manifest, folder or prefix; run again, it does only what is missing.

    Exit codes: 0 completed; 1 too many images did not end ok, so that the job failed or was stopped early (the reason
    is printed; run again with a higher --error-threshold it goes on); 2 a mistake; 130 interrupted.

    Examples:

        glint batch run --model models:/boards@champion --input manifest.parquet

        glint batch run --model models:/boards/3 --input az://images/line-4 --job line-4

        glint batch run --model models:/boards/3 --input scans/ --error-threshold 10% --parquet
    """
    from glint.cli.console import emit, next_step, progress
    from glint.pipelines.access import check_input
    from glint.settings import Settings
    from glint.wiring import (
        check_store,
        check_store_answers,
        open_images,
        open_model,
        open_store,
        pinned,
        pinned_preparer,
    )

    given = {name: value for name, value in locals().items() if name in JobOptions.model_fields and value is not None}
    settings = Settings()
    options = job_options({"ttl_days": settings.outcome_ttl_days} | given, as_flags=True)
    images = open_images(settings)
    check_input(input, images)
    warning = check_store_answers(settings)

    # They take seconds to import, which a wrong setting need not wait for.
    from glint.cli.starting import start
    from glint.cli.tables import fields
    from glint.pipelines.batch import freeze_input, run_batch
    from glint.pipelines.batch_run import BatchRun

    found = open_model(model, settings, options.engine)
    with progress() as told:
        if warning:
            told.say(warning)
        manifest = freeze_input(input, images, settings.home_path, told, job)
        start(settings, told)
        check_store(settings)
        batch = BatchRun(
            model_uri=found.uri,
            model=found.ref,
            open_predictor=pinned(found, settings),
            open_preparer=pinned_preparer(found, settings),
            input=input,
            manifest=manifest,
            images=images,
            store=open_store(settings),
            home=settings.home_path,
            options=options,
            job=job,
        )
        result = run_batch(batch, told, settings.node_price)
    said = [result.error] if result.error else []
    said += [result.bottleneck.line] if result.bottleneck else []
    said += [next_step(f"batch results {result.job}")] if result.unstarted < result.num_images else []
    emit(result, json, fields(result, "bottleneck", "error"), *said)
    if result.status != "completed":
        raise typer.Exit(UNFINISHED)


@app.command()
def results(
    job: Annotated[str, typer.Argument(help="a job's id")],
    status: Annotated[str | None, typer.Option(help="only outcomes of this status")] = None,
    label: Annotated[str | None, typer.Option(help="only those whose most probable class is this one")] = None,
    decision: Annotated[str | None, typer.Option(help="only those decided so: accept, review or reject")] = None,
    min_confidence: Annotated[float | None, typer.Option(help="only those as sure as this, 0 to 1")] = None,
    max_confidence: Annotated[float | None, typer.Option(help="only those no surer than this, 0 to 1")] = None,
    format: Annotated[Format, typer.Option(help="table, csv, or parquet (needs --out)")] = Format.table,
    out: Annotated[Path | None, typer.Option(help="FILE.csv or FILE.parquet to write")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="at most so many; a table has 50 by default")] = None,
    url: Annotated[
        str | None, typer.Option(envvar="GLINT_URL", help="of the glint that served the job; default: this store")
    ] = None,
    json: AsJson = False,
) -> None:
    """Show or export what became of each image.

    Examples:

        glint batch results 3fa4bc0d1e2f5a6b --status undecodable

        glint batch results 3fa4bc0d1e2f5a6b --decision review --label open --max-confidence 0.6

        glint batch results 3fa4bc0d1e2f5a6b --format parquet --out outcomes.parquet

        glint batch results 3fa4bc0d1e2f5a6b --url http://127.0.0.1:8000 --status missing
    """
    from glint.cli.outcomes import filter_of, show_outcomes, show_remote_outcomes
    from glint.cli.remote import connect
    from glint.settings import Settings
    from glint.wiring import open_store

    where = filter_of(status, label, decision, min_confidence, max_confidence)
    if url is not None:
        with connect(url) as client:
            show_remote_outcomes(client, job, where, format.value, out, limit, json)
        return
    show_outcomes(open_store(Settings()), job, where, format.value, out, limit, json)
