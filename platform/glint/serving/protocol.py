"""Tensors of the Open Inference Protocol v2 with its binary data extension: bodies in and out, without HTTP.

A body is JSON, or JSON of a length that the header HEADER gives with the tensors' bytes behind it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from glint.serving.bodies import MAX_IMAGES, check_json, from_base64, invalid_json
from glint.serving.problems import ProblemError

HEADER = "Inference-Header-Content-Length"
INPUT = "image"
Values = np.ndarray[Any, Any] | Sequence[str]
OUTPUTS = {"probabilities": "FP32", "label": "BYTES", "decision": "BYTES"}


class Tensor(BaseModel):
    """An input tensor."""

    name: str = Field(json_schema_extra={"const": INPUT})
    shape: list[int] = Field(min_length=1, max_length=2)
    datatype: str = Field(json_schema_extra={"const": "BYTES"})
    parameters: dict[str, Any] = Field(default_factory=dict)
    data: list[Any] | None = Field(
        default=None, max_length=MAX_IMAGES, description="each image in base64, where it is not binary data"
    )


class WantedOutput(BaseModel):
    """An output that is asked for."""

    name: str
    parameters: dict[str, Any] = Field(default_factory=dict)


class InferRequest(BaseModel):
    """What is asked of a model."""

    id: str | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    inputs: list[Tensor] = Field(min_length=1, max_length=1)
    outputs: list[WantedOutput] = Field(default_factory=list)


class OutputTensor(BaseModel):
    """An output tensor."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] | None = None
    data: list[Any] | None = None


class InferResponse(BaseModel):
    """What a model answers."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


def read_request(body: bytes, header: str | None) -> tuple[InferRequest, list[bytes]]:
    """The request and its encoded images; raises ProblemError 400 or 422."""
    if header is not None and not (header.isdecimal() and len(header) < 20 and int(header) <= len(body)):
        raise ProblemError(400, "bad_header", f"{HEADER} must be the length of the JSON, got {header[:20]!r}")
    size = len(body) if header is None else int(header)
    check_json(body[:size])
    try:
        asked = InferRequest.model_validate_json(body[:size])
    except ValidationError as error:
        raise invalid_json(error) from None
    tensor, unknown = asked.inputs[0], [one.name for one in asked.outputs if one.name not in OUTPUTS]
    if tensor.name != INPUT or tensor.datatype != "BYTES":
        given = f"{tensor.name[:50]!r} of {tensor.datatype[:20]!r}"
        raise ProblemError(422, "invalid_input", f"the input must be {INPUT!r} of 'BYTES', got {given}")
    if unknown:
        raise ProblemError(422, "invalid_output", f"outputs are {', '.join(OUTPUTS)}, got {unknown[0][:50]!r}")
    images = _binary(body[size:]) if "binary_data_size" in tensor.parameters else _plain(tensor)
    if not 1 <= len(images) <= MAX_IMAGES or [len(images), *tensor.shape[1:]] not in (
        [tensor.shape[0]],
        [tensor.shape[0], 1],
    ):
        wanted = f"the shape must be [N] or [N, 1] for N images, 1 to {MAX_IMAGES}"
        number = f"{len(images)}{' or more' * (len(images) > MAX_IMAGES)}"
        raise ProblemError(422, "invalid_shape", f"{wanted}, got {tensor.shape} for {number}")
    return asked, images


def write_response(
    asked: InferRequest, name: str, version: str, tensors: Mapping[str, Values]
) -> tuple[bytes, dict[str, str]]:
    """The body of the answer and its headers."""
    parameters = {one.name: one.parameters for one in asked.outputs} or {wanted: {} for wanted in OUTPUTS}
    by_default = bool(asked.parameters.get("binary_data_output", False))
    outputs: list[OutputTensor] = []
    raw: list[bytes] = []
    for wanted, given in parameters.items():
        binary = bool(given.get("binary_data", by_default))
        outputs.append(_output(wanted, tensors[wanted], raw if binary else None))
    document = InferResponse(model_name=name, model_version=version, id=asked.id, outputs=outputs)
    head = document.model_dump_json(exclude_none=True).encode()
    if not raw:
        return head, {"content-type": "application/json"}
    return head + b"".join(raw), {"content-type": "application/octet-stream", HEADER: str(len(head))}


def _output(name: str, values: Values, raw: list[bytes] | None) -> OutputTensor:
    """An output; with `raw` its bytes go there."""
    shape = list(np.shape(values))
    if raw is None:
        data = np.ravel(np.asarray(values)).tolist()
        return OutputTensor(name=name, datatype=OUTPUTS[name], shape=shape, data=data)
    if isinstance(values, np.ndarray):
        raw.append(values.astype("<f4").tobytes())
    else:
        raw.append(b"".join(struct.pack("<I", len(text)) + text for text in map(str.encode, values)))
    return OutputTensor(name=name, datatype=OUTPUTS[name], shape=shape, parameters={"binary_data_size": len(raw[-1])})


def _binary(data: bytes) -> list[bytes]:
    """Elements, each after its length in 4 bytes; of too many the first MAX_IMAGES + 1."""
    images: list[bytes] = []
    at = 0
    while at < len(data) and len(images) <= MAX_IMAGES:
        size = int.from_bytes(data[at : at + 4], "little")
        if at + 4 + size > len(data):
            raise ProblemError(400, "bad_tensor", "the tensor's bytes end before its last element does")
        images.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return images


def _plain(tensor: Tensor) -> list[bytes]:
    """Elements, in rows or not; of too many the first MAX_IMAGES + 1."""
    data = (each for one in tensor.data or [] for each in (one if isinstance(one, list) else [one]))
    return [from_base64(str(one), f"inputs.0.data.{at}") for at, one in enumerate(islice(data, MAX_IMAGES + 1))]
