"""The online HTTP API: an image in, its class out. Knows nothing of Ray: any ASGI server can host it."""

from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from pydantic import BaseModel, Field

from glint import __version__
from glint.core.outcome import DEFAULT_TOP_K, Decision, ModelRef, Prediction, Score
from glint.serving.problems import ProblemError, answer_with_problems, document_problems, problem_responses

Classify = Callable[[bytes, int], Awaitable[tuple[Prediction, dict[str, float]]]]
"""An encoded image and top_k, to its prediction and the milliseconds of each stage; raises ImageError."""

RAW_TYPES = ("", "application/octet-stream", "application/x-www-form-urlencoded")
"""Content types that say nothing of the body. The last is what `curl --data-binary` sends unless told otherwise."""

IMAGE_BODY = {
    "description": "The image as the raw body: JPEG, PNG, WebP, BMP, TIFF or GIF. What it is, its first bytes tell.",
    "required": True,
    "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in ("image/*", *RAW_TYPES[1:])},
}
CLASSIFY_PROBLEMS = problem_responses(
    {
        400: "An image that cannot be decoded: empty, truncated, damaged",
        413: "More bytes or pixels than the server takes",
        415: "Not an image, by its content type or by its first bytes",
        422: "A query parameter out of range",
        500: "The server's own mistake",
    }
)
PLAIN = {"text/plain": {"schema": {"type": "string"}}}
SERVER_ANSWERS: dict[int | str, dict[str, Any]] = {
    408: {"description": "The request took longer than the server allows", "content": PLAIN},
    503: {
        "description": "Too many requests wait already; try again after Retry-After seconds",
        "headers": {"Retry-After": {"schema": {"type": "integer"}}},
        "content": PLAIN,
    },
}
"""What the server in front of this app may answer in its stead."""


class Classification(BaseModel):
    """The answer for one image."""

    label: str | None = Field(description="the most probable class; null where the image has none of the classes")
    labels: tuple[str, ...] = Field(description="all classes that the image has: one, unless the model gives several")
    confidence: float = Field(ge=0, le=1, description="how sure the model is of that")
    top_k: tuple[Score, ...] = Field(description="the most probable classes, best first")
    decision: Decision = Field(description="what the model's policy makes of it; review: a person should look")
    model: ModelRef


class Served(BaseModel):
    """What this server answers with, and what it takes."""

    model: ModelRef
    classes: tuple[str, ...]
    max_bytes: int = Field(description="larger bodies are refused with 413")


class Welcome(BaseModel):
    """Where to go from the root."""

    service: str = "glint"
    classify: str = "POST /v1/classify"
    model: str = "/v1/model"
    openapi: str = "/openapi.json"


def create_app(classify: Classify, model: ModelRef, classes: tuple[str, ...], max_bytes: int) -> FastAPI:
    """The API around `classify`, which answers for a model of these classes; bodies above `max_bytes` are refused.

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
    document_problems(app)

    @app.get("/", summary="Where to go from here")
    async def root() -> Welcome:
        return Welcome()

    @app.get("/v1/model", summary="What is served")
    async def served() -> Served:
        return Served(model=model, classes=classes, max_bytes=max_bytes)

    @app.post(
        "/v1/classify",
        summary="Classify one image",
        responses=CLASSIFY_PROBLEMS | SERVER_ANSWERS,
        openapi_extra={"requestBody": IMAGE_BODY},
    )
    async def classify_image(
        request: Request,
        response: Response,
        top_k: Annotated[int, Query(ge=1, le=len(classes), description="how many classes to answer with")] = min(
            DEFAULT_TOP_K, len(classes)
        ),
    ) -> Classification:
        _check_content_type(request)
        began = perf_counter()
        body = await _read_body(request, max_bytes)
        body_ms = 1000 * (perf_counter() - began)
        prediction, timings_ms = await classify(body, top_k)
        response.headers["Server-Timing"] = _server_timing({"body": body_ms} | timings_ms)
        return _answer(prediction, model)

    return app


def _check_content_type(request: Request) -> None:
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind not in RAW_TYPES and not kind.startswith("image/"):
        wanted = "the content type must be image/* or application/octet-stream, with the image as the raw body"
        raise ProblemError(415, "content_type", f"{wanted}, got {kind[:100]!r}")


async def _read_body(request: Request, max_bytes: int) -> bytes:
    """The body, of which no more than `max_bytes` and one chunk are ever read."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise _too_many_bytes(max_bytes, int(declared))
    chunks, size = [], 0
    async for chunk in request.stream():
        chunks.append(chunk)
        size += len(chunk)
        if size > max_bytes:
            raise _too_many_bytes(max_bytes, size)
    return b"".join(chunks)


def _too_many_bytes(max_bytes: int, size: int) -> ProblemError:
    return ProblemError(413, "too_many_bytes", f"an image may have at most {max_bytes:,} bytes, got at least {size:,}")


def _answer(prediction: Prediction, model: ModelRef) -> Classification:
    assert prediction.confidence is not None, "only an image that was classified gets here"
    assert prediction.decision is not None
    return Classification(
        label=prediction.label,
        labels=prediction.labels,
        confidence=prediction.confidence,
        top_k=prediction.top_k,
        decision=prediction.decision,
        model=model,
    )


def _server_timing(timings_ms: dict[str, float]) -> str:
    """The header of that name (W3C Server Timing)."""
    return ", ".join(f"{stage};dur={duration:.1f}" for stage, duration in timings_ms.items())
