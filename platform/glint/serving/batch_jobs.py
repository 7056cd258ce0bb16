"""The batch HTTP API: endpoints with deployments, and jobs that run apart. Knows nothing of Ray."""

import tempfile
from pathlib import Path
from typing import Annotated, Literal

from fastapi import Depends, FastAPI, Header, Query, Response
from fastapi.responses import FileResponse, StreamingResponse
from starlette.background import BackgroundTask

from glint import __version__
from glint.core.endpoint import Deployment, Endpoint
from glint.core.errors import GlintError
from glint.core.outcome_files import csv_lines, write_parquet
from glint.core.stores import MAX_PAGE, OutcomeFilter
from glint.core.submission import Submission
from glint.serving.batch_answers import (
    PREFIX,
    Default,
    Endpoints,
    Errors,
    JobAnswer,
    JobProgress,
    JobRequest,
    Jobs,
    Logs,
    NewEndpoint,
    ResultPage,
    Retry,
    job_answer,
)
from glint.serving.batch_desk import Desk
from glint.serving.problems import (
    answer_mistakes,
    answer_with_problems,
    document_schemas,
    only_known_parameters,
    problem_responses,
)

PARQUET = "application/vnd.apache.parquet"
PROBLEMS = problem_responses(
    {
        404: "There is no endpoint, deployment or job of that name",
        409: "It exists already, was changed meanwhile, or has not ended",
        413: "A body of more than 16 MB",
        422: "A value out of range, or one that the server's settings do not allow",
        500: "The server's own mistake",
        503: "The result store does not answer, or is not usable as it is set up",
    }
)
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]
OUTCOME_ID, SORT_KEY = "^[0-9a-f]{40}$", r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00\|.+$"
"""What cursors look like: a damaged one would otherwise be behind the last page."""
Confidence = Annotated[float | None, Query(ge=0, le=1)]


def create_batch_app(desk: Desk) -> FastAPI:
    """The API in front of `desk`, to be hosted at PREFIX; its OpenAPI is at PREFIX/openapi.json."""
    app = FastAPI(
        title="glint batch",
        summary="Scores many images; every one ends as exactly one outcome.",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
        responses=PROBLEMS,
        dependencies=[Depends(only_known_parameters)],
    )
    answer_with_problems(app)
    answer_mistakes(app)
    document_schemas(app)
    _add_endpoints(app, desk)
    _add_jobs(app, desk)
    _add_results(app, desk)
    return app


def _add_endpoints(app: FastAPI, desk: Desk) -> None:
    @app.get("/endpoints", summary="All endpoints")
    async def list_endpoints() -> Endpoints:
        return Endpoints(endpoints=tuple(await desk.books.endpoints()))

    @app.post("/endpoints", status_code=201, summary="Make an endpoint")
    async def create_endpoint(asked: NewEndpoint) -> Endpoint:
        return await desk.create(asked)

    @app.get("/endpoints/{name}", summary="One endpoint")
    async def show_endpoint(name: str) -> Endpoint:
        return await desk.endpoint(name)

    @app.delete("/endpoints/{name}", status_code=204, summary="Delete an endpoint; its jobs stay")
    async def delete_endpoint(name: str) -> None:
        await desk.delete(name)

    @app.put("/endpoints/{name}/deployments/{deployment}", summary="Add or replace a deployment")
    async def put_deployment(name: str, deployment: str, asked: Deployment) -> Endpoint:
        return await desk.deploy(name, deployment, asked)

    @app.delete("/endpoints/{name}/deployments/{deployment}", summary="Take a deployment away")
    async def delete_deployment(name: str, deployment: str) -> Endpoint:
        return await desk.withdraw(name, deployment)

    @app.put("/endpoints/{name}/default", summary="Choose the default deployment")
    async def set_default(name: str, asked: Default) -> Endpoint:
        return await desk.set_default(name, asked.deployment)


def _add_jobs(app: FastAPI, desk: Desk) -> None:
    async def answer(submission: Submission) -> JobAnswer:
        job = await desk.store.get_job(submission.id)
        return job_answer(submission, job.bottleneck if job else None)

    @app.post("/endpoints/{name}/jobs", status_code=202, summary="Submit a job")
    async def submit_job(
        name: str,
        asked: JobRequest,
        response: Response,
        idempotency_key: Annotated[
            str | None, Header(min_length=1, max_length=200, description="makes a repetition harmless")
        ] = None,
    ) -> JobAnswer:
        job = job_answer(await desk.submit(name, asked, idempotency_key))
        response.headers["location"] = f"{PREFIX}/jobs/{job.id}"
        return job

    @app.get("/jobs", summary="Jobs, the newest first")
    async def list_jobs(
        endpoint: Annotated[str | None, Query(description="only those of this one")] = None,
        cursor: Annotated[str | None, Query(description="of the page before", pattern=SORT_KEY)] = None,
        limit: Limit = 100,
    ) -> Jobs:
        found, following = await desk.books.submissions(endpoint, cursor, limit)
        return Jobs(jobs=tuple(map(job_answer, found)), cursor=following)

    @app.get("/jobs/{id}", summary="One job")
    async def show_job(id: str) -> JobAnswer:
        return await answer(await desk.job(id))

    @app.delete("/jobs/{id}", status_code=204, summary="Delete a job that has ended, with its outcomes")
    async def delete_job(id: str) -> None:
        await desk.delete_job(id)

    @app.get("/jobs/{id}/progress", summary="How far a job is")
    async def job_progress(id: str) -> JobProgress:
        return await desk.progress(id)

    @app.get("/jobs/{id}/logs", summary="What the driver has printed")
    async def job_logs(id: str) -> Logs:
        attempt, text = await desk.logs(id)
        return Logs(attempt=attempt, text=text)

    @app.post("/jobs/{id}/cancel", summary="Stop a job; what was done stays")
    async def cancel_job(id: str) -> JobAnswer:
        return await answer(await desk.cancel(id))

    @app.post("/jobs/{id}/retry", status_code=202, summary="Score what is missing, what failed or everything again")
    async def retry_job(id: str, asked: Retry | None = None) -> JobAnswer:
        return job_answer(await desk.retry(id, asked or Retry()))


def _add_results(app: FastAPI, desk: Desk) -> None:
    @app.get(
        "/jobs/{id}/results",
        summary="What became of each image",
        response_model=ResultPage,
        responses={200: {"content": {"text/csv": {}, PARQUET: {}}, "description": "A page, or a file of all"}},
    )
    async def job_results(
        id: str,
        status: str | None = None,
        label: str | None = None,
        decision: str | None = None,
        min_confidence: Confidence = None,
        max_confidence: Confidence = None,
        format: Annotated[
            Literal["json", "csv", "parquet"], Query(description="json comes in pages, the others whole")
        ] = "json",
        cursor: Annotated[str | None, Query(description="of the page before", pattern=OUTCOME_ID)] = None,
        limit: Limit = 100,
    ) -> object:
        where = OutcomeFilter(status, label, decision, min_confidence, max_confidence)
        await desk.job(id)
        if format == "json":
            page = await desk.store.page(id, where, cursor, limit)
            return ResultPage(outcomes=page.outcomes, cursor=page.cursor)
        if cursor is not None:
            raise GlintError(f"cursor goes with format=json: {format} has all outcomes, from the first one")
        if format == "csv":
            return StreamingResponse(csv_lines(desk.outcomes(id, where)), media_type="text/csv")
        return await _parquet(desk, id, where)

    @app.get("/jobs/{id}/errors", summary="What went wrong, by reason")
    async def job_errors(id: str) -> Errors:
        return await desk.errors(id)


async def _parquet(desk: Desk, id: str, where: OutcomeFilter) -> Response:
    """A file, whose footer is written last: so it lies on disk first, and goes when it is sent."""
    with tempfile.NamedTemporaryFile(prefix="glint-", suffix=".parquet", delete=False) as file:
        path = Path(file.name)
    try:
        await write_parquet(path, desk.outcomes(id, where))
    except BaseException:
        path.unlink()
        raise
    return FileResponse(path, media_type=PARQUET, filename=f"{id}.parquet", background=BackgroundTask(path.unlink))
