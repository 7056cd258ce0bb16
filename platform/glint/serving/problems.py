"""Every error of the HTTP API as one JSON document of type application/problem+json (RFC 9457)."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from glint.core.errors import ConflictError, GlintError, ImageError, MissingError, StoreError

MEDIA_TYPE = "application/problem+json"
STORE_RETRY_AFTER_S = 5
IMAGE_STATUSES = {"undecodable": 400, "too_large": 413, "missing": 404, "denied": 403, "changed": 409, "failed": 502}

logger = logging.getLogger(__name__)


class Problem(BaseModel):
    """Why a request got no answer. `detail` is for a person, `reason` for a program."""

    type: str = Field(default="about:blank", description="about:blank: the status says the kind, `reason` the cause")
    title: str = Field(description="the status in words")
    status: int = Field(description="the HTTP status")
    detail: str = Field(description="one line for a person: what is wrong, and what would be right")
    reason: str = Field(description="short and stable, in snake_case, such as truncated or too_many_bytes")


class ProblemError(HTTPException):
    """Raised anywhere in a request to answer it with a problem; FastAPI lets it pass while it reads a body, too."""

    def __init__(self, status: int, reason: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, detail, headers)
        self.reason = reason

    def __str__(self) -> str:
        return self.detail


async def only_known_parameters(request: Request) -> None:
    """Raise ProblemError for a parameter that the operation has not.

    A filter that is misspelt would find everything, and an option would do nothing.
    """
    known = [parameter.alias for parameter in request.scope["route"].dependant.query_params]
    for name in request.query_params:
        if name not in known:
            there = f"there are {', '.join(known)}" if known else "there are none"
            raise ProblemError(422, "invalid_query", f"{name} is no parameter of {request.url.path}; {there}")


def answer_with_problems(app: FastAPI) -> None:
    """Make `app` answer each of its errors with a problem: its own, an image's, the framework's and the unexpected."""
    app.add_exception_handler(ProblemError, _stated)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(ImageError, _unreadable)
    app.add_exception_handler(HTTPException, _framework)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _unexpected)


def answer_mistakes(app: FastAPI) -> None:
    """Make `app` answer each GlintError as its caller's mistake, with the error's line as the detail.

    Not so a StoreError: its line is for the server's log, and callers may come back later.
    """
    app.add_exception_handler(GlintError, _mistake)


def document_schemas(app: FastAPI, *bodies: type[BaseModel]) -> None:
    """Add the schema of a problem, and those of bodies that FastAPI does not parse itself, to the app's OpenAPI."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        schema = generate()
        documented: list[type[BaseModel]] = [Problem, *bodies]
        for kind in documented:
            described = kind.model_json_schema(ref_template="#/components/schemas/{model}")
            described.pop("$defs", None)
            schema["components"]["schemas"][kind.__name__] = described
        return schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the schema


def problem_responses(meanings: Mapping[int, str]) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's description of the problems that an operation may answer with, by status."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": meaning, "content": content} for status, meaning in meanings.items()}


def too_many_bytes(max_bytes: int, size: int) -> ProblemError:
    """Of a body that is larger than a server takes."""
    return ProblemError(413, "too_many_bytes", f"a body may have at most {max_bytes:,} bytes, got at least {size:,}")


def problem_response(request: Request, problem: ProblemError) -> Response:
    """A problem as the answer to a request."""
    return _response(request, problem.status_code, problem.reason, str(problem), problem.headers)


def problem_document(status: int, reason: str, detail: str) -> str:
    """A problem as JSON."""
    return Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, reason=reason).model_dump_json()


def image_status(error: ImageError) -> int | None:
    """The HTTP status for an image that cannot be read or decoded; None where that is the server's own mistake."""
    return 415 if error.type == "not_an_image" else IMAGE_STATUSES.get(error.status)


def _stated(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return problem_response(request, error)


def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    in_body = first["loc"][0] == "body"
    reason = "invalid_body" if in_body else "invalid_query"
    if first["type"] == "json_invalid":
        return _response(request, 422, reason, f"the body is not JSON: {first['ctx']['error']}")
    if first["loc"] == ("body",) and isinstance(first.get("input"), bytes):  # FastAPI has not parsed it
        sent = request.headers.get("content-type", "none")
        return _response(request, 422, reason, f"the body must be content-type: application/json, got {sent}")
    where = ".".join(str(part) for part in first["loc"][1:]) or "the body"
    if first["type"] == "value_error":  # a line of ours, which says what it is about
        return _response(request, 422, reason, f"{where}: {first['ctx']['error']}")
    message = f"{first['msg'][:1].lower()}{first['msg'][1:]}"
    return _response(request, 422, reason, f"{where}: {message}, got {str(first.get('input'))[:100]!r}")


def _unreadable(request: Request, error: Exception) -> Response:
    """Where the image is at fault, it is the caller's to mend; any other failure to read one is ours."""
    assert isinstance(error, ImageError)
    status = image_status(error)
    if status is None:
        raise error
    return _response(request, status, error.type, str(error))


def _mistake(request: Request, error: Exception) -> Response:
    if isinstance(error, MissingError):
        return _response(request, 404, "not_found", str(error))
    if isinstance(error, ConflictError):
        return _response(request, 409, "conflict", str(error))
    if isinstance(error, StoreError):
        logger.error("the result store cannot be used: %s", error)
        detail = f"the result store cannot be used at the moment{_trace(request)}"
        return _response(request, 503, "store_unavailable", detail, {"retry-after": str(STORE_RETRY_AFTER_S)})
    return _response(request, 422, "refused", str(error))


def _framework(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    described = f"{request.scope.get('root_path', '').rstrip('/')}/openapi.json"
    details = {
        404: f"there is nothing at {request.url.path}; see {described}",
        405: f"{request.url.path} does not answer {request.method}; see {described}",
    }
    return _response(request, status, status.name.lower(), details.get(status, str(error.detail)), error.headers)


def _gone(request: Request, error: Exception) -> Response:
    return _response(request, 400, "incomplete", "the connection closed before the whole image had arrived")


def _unexpected(request: Request, error: Exception) -> Response:
    """Say nothing of the inside. The server that hosts the app gets the exception too, and logs it."""
    return _response(request, 500, "internal_error", f"something went wrong inside the server{_trace(request)}")


def _trace(request: Request) -> str:
    request_id = request.headers.get("x-request-id")
    return f"; the server's log has it under request {request_id}" if request_id else "; the server's log says what"


def _response(
    request: Request, status: int, reason: str, detail: str, headers: Mapping[str, str] | None = None
) -> Response:
    document = json.loads(problem_document(status, reason, detail))
    if request.url.path.startswith("/v2"):  # where the Open Inference Protocol's clients look
        document["error"] = detail
    return Response(json.dumps(document), status, headers, media_type=MEDIA_TYPE)
