"""The online HTTP API: images in, their classes out. Knows nothing of Ray: any ASGI server can host it."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from time import perf_counter
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request, Response
from pydantic import BaseModel

from glint import __version__
from glint.core.errors import ImageError
from glint.core.outcome import DEFAULT_TOP_K, OutcomeError
from glint.serving.answering import Answering, together
from glint.serving.answers import Classification, Classifications, Result, Served, classification
from glint.serving.bodies import REQUEST_BODY, BodyLimits, ImageInput, ImagesInput, Sent, read_images
from glint.serving.metrics import MEDIA_TYPE
from glint.serving.problems import (
    ProblemError,
    answer_with_problems,
    document_schemas,
    only_known_parameters,
    problem_responses,
)
from glint.serving.protocol import InferRequest, Tensor, WantedOutput
from glint.serving.v2 import protocol_v2

LOG = logging.getLogger("glint.serving")
MAX_TOP_K = 1000
CLASSIFY_PROBLEMS = problem_responses(
    {
        400: "An image that cannot be decoded: empty, truncated, damaged; or a damaged form",
        401: "No key, or one that is unknown here",
        403: "A key without the scope, or an address that the server may not read",
        404: "No such model, or no such blob",
        408: "The request, or its body, took longer than the server allows",
        413: "More bytes or pixels than the server takes",
        415: "Not an image, by its content type or by its first bytes",
        422: "A parameter or a JSON body that is not as described",
        429: "More requests than this key may send; try again after Retry-After seconds",
        500: "The server's own mistake",
        502: "The blob could not be read",
        503: "Too many requests wait already; try again after Retry-After seconds",
    }
)
OpenUri = Callable[[str], AbstractAsyncContextManager[bytes]]
"""The bytes at an az:// address while they are needed; raises ImageError, and ProblemError where it may not be read."""


class Welcome(BaseModel):
    """Where to go from the root."""

    service: str = "glint"
    classify: str = "POST /v1/classify"
    model: str = "/v1/model"
    openapi: str = "/openapi.json"


ModelName = Annotated[
    str | None,
    Query(max_length=200, description="NAME, NAME@ALIAS or NAME/VERSION of what is served; the first is the default"),
]
Sticky = Annotated[
    str | None,
    Query(max_length=200, description="what a canary treats alike, such as a line; by default the image itself"),
]
TopK = Annotated[int, Query(ge=1, le=MAX_TOP_K, description="how many classes to answer with, if there are as many")]
Explain = Annotated[bool, Query(description="add a PNG of the image with what spoke for its label over it")]


@dataclass(frozen=True)
class Options:
    """What a request asks for, beside its images."""

    model: str | None
    top_k: int
    explain: bool
    key: bytes | None
    """what a canary treats alike"""


def create_app(models: Answering, limits: BodyLimits, open_uri: OpenUri) -> FastAPI:
    """The API around `models`.

    Its pages of documentation would load scripts from the internet, so there are none: /openapi.json has it all.
    """
    app = FastAPI(
        title="glint",
        summary="Classifies images.",
        version=__version__,
        servers=[{"url": "/"}],
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    answer_with_problems(app)
    document_schemas(app, ImageInput, ImagesInput, InferRequest, Tensor, WantedOutput)
    app.include_router(protocol_v2(models, limits))

    @app.get("/", summary="Where to go from here")
    async def root() -> Welcome:
        return Welcome()

    @app.get("/v1/model", summary="What is served", responses=_problems(401, 403, 404, 422, 429))
    async def served(model: ModelName = None) -> Served:
        ref, classes = models.describe(model)
        return Served(model=ref, classes=classes, max_bytes=limits.max_bytes, models=models.names)

    @app.get(
        "/metrics",
        summary="Counters for Prometheus",
        responses={**_problems(401, 403, 429), 200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
        response_class=Response,
    )
    async def metrics() -> Response:
        return Response(models.metrics(), media_type=MEDIA_TYPE)

    @app.post(
        "/v1/classify",
        summary="Classify one image or several",
        responses=CLASSIFY_PROBLEMS,
        openapi_extra={"requestBody": REQUEST_BODY},
        dependencies=[Depends(only_known_parameters)],
    )
    async def classify(
        request: Request,
        response: Response,
        model: ModelName = None,
        top_k: TopK = DEFAULT_TOP_K,
        explain: Explain = False,
        sticky: Sticky = None,
    ) -> Classification | Classifications:
        models.describe(model)
        models.check_room(model)
        options = Options(model, top_k, explain, sticky.encode() if sticky is not None else None)
        began = perf_counter()
        sent, several = await read_images(request, limits)
        timings_ms = {"body": 1000 * (perf_counter() - began)}
        if several:
            enter = functools.cache(lambda: models.check_room(model))  # for the first that is there, and so for all
            asked = [_result(models, one, open_uri, options, enter) for one in sent]
            return Classifications(results=tuple(await together(asked)))
        answer = await _answer(models, sent[0], open_uri, options, lambda: models.check_room(model), timings_ms)
        response.headers["Server-Timing"] = _server_timing(timings_ms)
        return answer

    return app


async def _answer(
    models: Answering,
    sent: Sent,
    open_uri: OpenUri,
    options: Options,
    enter: Callable[[], None],
    timings_ms: dict[str, float],
) -> Classification:
    """The answer for one image, unless `enter` refuses it once it is there; adds the milliseconds of its stages."""
    async with nullcontext(sent.data) if sent.data is not None else open_uri(sent.uri or "") as data:
        enter()
        prediction, ref, stages_ms = await models.classify(options.model, data, options.top_k, options.key)
        timings_ms |= stages_ms
        label = prediction.top_k[0].label
        shown = await models.explain(options.model, ref, data, label) if options.explain else None
        return classification(prediction, ref, shown)


async def _result(
    models: Answering, sent: Sent, open_uri: OpenUri, options: Options, enter: Callable[[], None]
) -> Result:
    """The answer for one image of several, or what is wrong with it."""
    try:
        answer = await _answer(models, sent, open_uri, options, enter, {})
        return Result(name=sent.name, classification=answer, error=None)
    except ImageError as error:
        wrong = OutcomeError(type=error.type, message=str(error))
    except ProblemError as problem:
        if problem.status_code == 503:  # no answer of its own, but one for the request: try again
            raise
        wrong = OutcomeError(type=problem.reason, message=str(problem))
    except Exception:  # our mistake, but the other images have their answers
        LOG.exception("one image of several has no answer")
        wrong = OutcomeError(type="internal_error", message="something went wrong inside the server; its log says what")
    return Result(name=sent.name, classification=None, error=wrong)


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: CLASSIFY_PROBLEMS[status] for status in statuses}


def _server_timing(timings_ms: dict[str, float]) -> str:
    """The header of that name (W3C Server Timing)."""
    return ", ".join(f"{stage};dur={duration:.1f}" for stage, duration in timings_ms.items())
