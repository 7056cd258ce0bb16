"""The Open Inference Protocol v2 (KServe, Triton): tritonclient.http works against it unchanged."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Path, Request, Response

from glint import __version__
from glint.serving.answering import Answering, together
from glint.serving.bodies import BodyLimits, parsed, read_body
from glint.serving.edge import MODELS_DIFFER
from glint.serving.problems import ProblemError, problem_responses
from glint.serving.protocol import (
    HEADER,
    INPUT,
    OUTPUTS,
    InferResponse,
    Values,
    read_request,
    write_response,
)

NO_VERSION = "1"
"""What the protocol has for a model that is no version of a registered one."""
Name = Annotated[str, Path(max_length=200)]
BODY = {
    "required": True,
    "content": {
        "application/json": {"schema": {"$ref": "#/components/schemas/InferRequest"}},
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
    },
}
PROBLEMS = problem_responses(
    {
        400: "An image that cannot be decoded, or a damaged body",
        401: "No key, or one that is unknown here",
        403: "A key without the scope",
        404: "No such model or version",
        408: "The request, or its body, took longer than the server allows",
        413: "More bytes or pixels than the server takes",
        415: "Not an image",
        422: "A body that is not as described",
        429: "More requests than this key may send",
        500: "The server's own mistake",
        503: "Too many requests wait already; try again after Retry-After seconds",
    }
)
ANSWER: dict[int | str, dict[str, Any]] = {
    200: {"model": InferResponse, "content": {"application/octet-stream": {"schema": {"type": "string"}}}}
}


def protocol_v2(models: Answering, limits: BodyLimits) -> APIRouter:
    """The protocol's routes around `models`."""
    router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"], responses=PROBLEMS)

    @router.get("", summary="The server")
    async def server_metadata() -> dict[str, Any]:
        return {"name": "glint", "version": __version__, "extensions": ["binary_tensor_data"]}

    @router.get("/health/live", summary="Whether the server lives")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @router.get("/health/ready", summary="Whether all models answer")
    async def ready() -> dict[str, bool]:
        return {"ready": True}

    @router.get("/models/{name}", summary="A model")
    @router.get("/models/{name}/versions/{version}", summary="A model", name="version_metadata")
    async def model_metadata(name: Name, version: str | None = None) -> dict[str, Any]:
        ref, classes = _described(models, name, version)
        shapes = {"probabilities": [-1, len(classes)]}
        return {
            "name": name,
            "versions": _versions(models, name) or [NO_VERSION],
            "platform": f"glint_{ref.engine}",
            "inputs": [{"name": INPUT, "datatype": "BYTES", "shape": [-1]}],
            "outputs": [
                {"name": wanted, "datatype": kind, "shape": shapes.get(wanted, [-1])}
                for wanted, kind in OUTPUTS.items()
            ],
            "parameters": {"classes": ",".join(classes)},
        }

    @router.get("/models/{name}/ready", summary="Whether a model answers")
    @router.get("/models/{name}/versions/{version}/ready", summary="Whether a model answers", name="version_ready")
    async def model_ready(name: Name, version: str | None = None) -> dict[str, Any]:
        _described(models, name, version)
        return {"name": name, "ready": True}

    @router.post(
        "/models/{name}/infer", summary="Classify images", responses=ANSWER, openapi_extra={"requestBody": BODY}
    )
    @router.post(
        "/models/{name}/versions/{version}/infer",
        summary="Classify images",
        name="version_infer",
        responses=ANSWER,
        openapi_extra={"requestBody": BODY},
    )
    async def infer(request: Request, name: Name, version: str | None = None) -> Response:
        asked_for = _asked_for(models, name, version)
        models.check_room(asked_for)
        asked, images = await parsed(read_request, await read_body(request, limits), request.headers.get(HEADER))
        models.check_room(asked_for)
        answers = await together(models.probabilities(asked_for, image, images[0]) for image in images)
        if any(ref != answers[0][1] for _, ref, _ in answers):
            said = "the images were classified by different models, since one failed or was swapped; try again"
            raise ProblemError(503, MODELS_DIFFER, said, {"Retry-After": "1"})
        tensors: dict[str, Values] = {
            "probabilities": np.array([shares for _, _, shares in answers], dtype=np.float32),
            "label": [prediction.label or "" for prediction, _, _ in answers],
            "decision": [str(prediction.decision) for prediction, _, _ in answers],
        }
        body, headers = write_response(asked, name, answers[0][1].version or NO_VERSION, tensors)
        return Response(body, headers=headers)

    return router


def _described(models: Answering, name: str, version: str | None) -> tuple[Any, tuple[str, ...]]:
    """The model and its classes; raises ProblemError 404 where it or its version is not served."""
    return models.describe(_asked_for(models, name, version))


def _asked_for(models: Answering, name: str, version: str | None) -> str:
    """A model, or one version of it, as requests name it; raises ProblemError 404 where that is not served."""
    models.describe(name)
    if version is None:
        return name
    versions = _versions(models, name)
    if version not in (versions or [NO_VERSION]):
        raise ProblemError(404, "unknown_version", f"model {name} is served as version {' and '.join(versions) or 1}")
    return f"{name.partition('@')[0]}/{version}" if versions else name


def _versions(models: Answering, name: str) -> list[str]:
    """Those of a model, or of one side of it, that are served; none where it is of no registry."""
    if "@" in name:
        side = models.describe(name)[0].version
        return [side] if side else []
    return [one.removeprefix(f"{name}/") for one in models.names if one.startswith(f"{name}/")]
