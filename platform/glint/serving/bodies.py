"""The images that a request brings: its raw body, the files of a form, or JSON with base64 or az:// addresses."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from glint.serving.problems import ProblemError, too_many_bytes

RAW_TYPES = ("", "application/octet-stream", "application/x-www-form-urlencoded")
"""Content types that say nothing of the body. The last is what `curl --data-binary` sends unless told otherwise."""
FORM, JSON = "multipart/form-data", "application/json"
MAX_IMAGES = 32
MAX_JSON_PARTS = 10_000
"""Commas and brackets in JSON: what is wanted has some hundreds, and each may become an object of a hundred bytes."""
LARGE_BODY = 1_000_000
"""Bytes of a body from which on others' requests would notice that it is parsed."""
Parsed = TypeVar("Parsed")


@dataclass(frozen=True)
class BodyLimits:
    """What a request's body may cost."""

    max_bytes: int = 64_000_000
    timeout_s: float = 30
    """in which the whole body must have arrived"""


@dataclass(frozen=True)
class Sent:
    """One image of a request: its bytes, or the address to read them from."""

    data: bytes | None = None
    uri: str | None = None
    name: str | None = None


class ImageInput(BaseModel):
    """An image in JSON: either its bytes or its address."""

    model_config = ConfigDict(extra="forbid")

    image: str | None = Field(default=None, description="the encoded image in base64")
    uri: str | None = Field(default=None, description="az://CONTAINER/KEY below a prefix that the server allows")
    name: str | None = Field(default=None, max_length=200, description="given back with the answer")


class ImagesInput(BaseModel):
    """Several images in JSON."""

    model_config = ConfigDict(extra="forbid")

    images: Annotated[list[ImageInput], Field(min_length=1, max_length=MAX_IMAGES)]


_ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)
_FILE = {"type": "string", "format": "binary"}
REQUEST_BODY = {
    "description": (
        "One image as the raw body (JPEG, PNG, WebP, BMP, TIFF or GIF; what it is, its first bytes tell), one or "
        f"several as the files of a form, or JSON. At most {MAX_IMAGES} images."
    ),
    "required": True,
    "content": {
        **{kind: {"schema": _FILE} for kind in ("image/*", *RAW_TYPES[1:])},
        FORM: {
            "schema": {
                "type": "object",
                "properties": {"image": {"type": "array", "items": _FILE, "minItems": 1, "maxItems": MAX_IMAGES}},
                "required": ["image"],
            }
        },
        JSON: {
            "schema": {
                "anyOf": [
                    {"$ref": "#/components/schemas/ImageInput"},
                    {"$ref": "#/components/schemas/ImagesInput"},
                ]
            }
        },
    },
}


async def read_images(request: Request, limits: BodyLimits) -> tuple[list[Sent], bool]:
    """The images of a request, and whether it asks for a list of answers."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind not in (*RAW_TYPES, FORM, JSON) and not kind.startswith("image/"):
        wanted = f"the content type must be image/*, application/octet-stream, {FORM} or {JSON}"
        raise ProblemError(415, "content_type", f"{wanted}, got {kind[:100]!r}")
    body = await read_body(request, limits)
    if kind == FORM:
        files = _files(request, body)
        return await (files if len(body) < LARGE_BODY else asyncio.to_thread(asyncio.run, files))
    return await parsed(_from_json, body) if kind == JSON else ([Sent(data=body)], False)


async def parsed(parse: Callable[..., Parsed], body: bytes, *arguments: Any) -> Parsed:
    """What `parse` makes of a body, in a thread where that may take long."""
    if len(body) < LARGE_BODY:
        return parse(body, *arguments)
    return await asyncio.to_thread(parse, body, *arguments)


async def read_body(request: Request, limits: BodyLimits) -> bytes:
    """The body, of which no more than `max_bytes` and one chunk are ever read."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", ""):
        raise ProblemError(
            415, "content_encoding", f"bodies are read as they are, not as {encoding[:50]!r}: send it plain"
        )
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limits.max_bytes:
        raise too_many_bytes(limits.max_bytes, int(declared))
    try:
        async with asyncio.timeout(limits.timeout_s):
            return await _read(request, limits.max_bytes)
    except TimeoutError:
        message = f"the body had not arrived after {limits.timeout_s:g} s"
        raise ProblemError(408, "slow_body", message) from None


async def _read(request: Request, max_bytes: int) -> bytes:
    chunks, size = [], 0
    async for chunk in request.stream():
        chunks.append(chunk)
        size += len(chunk)
        if size > max_bytes:
            raise too_many_bytes(max_bytes, size)
    return b"".join(chunks)


async def _files(request: Request, body: bytes) -> tuple[list[Sent], bool]:
    """Every file of a form, whatever its field is called."""

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        form = await MultiPartParser(request.headers, stream(), max_files=MAX_IMAGES, max_fields=MAX_IMAGES).parse()
    except (MultiPartException, KeyError, ValueError, UnicodeError) as error:
        if str(error).startswith("Too many"):
            raise ProblemError(422, "too_many_images", f"a form may have at most {MAX_IMAGES} files") from None
        raise ProblemError(400, "bad_form", f"this is no {FORM}: {error}") from None
    uploads = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    sent = [Sent(data=await upload.read(), name=upload.filename) for upload in uploads]
    await form.close()
    if not sent:
        raise ProblemError(422, "no_image", "the form has no file; send each image as a file field")
    return sent, len(sent) > 1


def _from_json(body: bytes) -> tuple[list[Sent], bool]:
    check_json(body)
    try:
        given = _ANYTHING.validate_json(body)
        several = ImagesInput.model_validate(given) if isinstance(given, dict) and "images" in given else None
        one = None if several else ImageInput.model_validate(given)
    except ValidationError as error:
        raise invalid_json(error) from None
    if several:
        return [_sent(given, f"images.{at}") for at, given in enumerate(several.images)], True
    assert one is not None
    return [_sent(one, "body")], False


def check_json(body: bytes) -> None:
    """Raise ProblemError for JSON that would take far more memory than its own; to be asked before it is parsed."""
    parts = sum(body.count(separator) for separator in (b",", b"[", b"{"))
    if parts > MAX_JSON_PARTS:
        said = f"the JSON has {parts:,} commas and brackets, {MAX_JSON_PARTS:,} are allowed"
        raise ProblemError(422, "invalid_body", f"body: {said}")


def invalid_json(error: ValidationError) -> ProblemError:
    """The first thing that is wrong with a JSON body."""
    first: Any = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"])) or "body"
    said = re.sub(r"valid dictionary or instance of \w+", "JSON object", first["msg"])
    return ProblemError(422, "invalid_body", f"{where}: {said[:1].lower()}{said[1:]}")


def _sent(given: ImageInput, where: str) -> Sent:
    if (given.image is None) == (given.uri is None):
        raise ProblemError(422, "invalid_body", f"{where} must have either image or uri")
    if given.image is None:
        return Sent(uri=given.uri, name=given.name or given.uri)
    return Sent(data=from_base64(given.image, where), name=given.name)


def from_base64(text: str, where: str) -> bytes:
    """Decoded; raises ProblemError naming the place where it is not base64."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ProblemError(422, "invalid_body", f"{where}: this is not base64") from None
