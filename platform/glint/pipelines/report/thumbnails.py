"""Pictures of single images that are part of the page: as they are, and with what spoke for the model's answer."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from PIL import Image

from glint.adapters.images import Images
from glint.core.errors import ImageError
from glint.pipelines.report.content import words
from glint.vision.decode import Limits, decode
from glint.vision.explain import Explainer, overlay

THUMBNAIL_PX = 160
THREADS = 8


@dataclass(frozen=True)
class Thumbnail:
    """An image as a data: address, and with the saliency over it; where they are None, `reason` says why."""

    picture: str | None
    saliency: str | None
    reason: str | None


def thumbnails(
    images: Images, uris: Sequence[str], explainer: Explainer | None = None, explained: Sequence[int] = ()
) -> list[Thumbnail]:
    """One for each uri. With an explainer, also what spoke for the class of that number in `explained`."""
    with ThreadPoolExecutor(THREADS, "glint-thumbnails") as pool:
        read = list(pool.map(lambda uri: _read(images, uri), uris))
    if explainer is None:
        return [_thumbnail(found) for found in read]
    return [_explained(found, explainer, label) for found, label in zip(read, explained, strict=True)]


def _read(images: Images, uri: str) -> tuple[bytes, Image.Image] | ImageError:
    """The encoded bytes, and a small picture of them."""
    try:
        data = images.read(uri, None)
        pixels = decode(data, Limits())
    except ImageError as error:
        return error
    picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    picture.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    return data, picture


def _thumbnail(found: tuple[bytes, Image.Image] | ImageError) -> Thumbnail:
    if isinstance(found, ImageError):
        return Thumbnail(None, None, words(found.type))
    return Thumbnail(_address(found[1], quality=85), None, None)


def _explained(found: tuple[bytes, Image.Image] | ImageError, explainer: Explainer, label: int) -> Thumbnail:
    plain = _thumbnail(found)
    if isinstance(found, ImageError):
        return plain
    data, picture = found
    heat = explainer.saliency(explainer.prepare(data), label)
    if heat is None:
        return plain
    return Thumbnail(plain.picture, _address(overlay(picture, heat, explainer.preprocessing), quality=75), None)


def _address(picture: Image.Image, quality: int) -> str:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
