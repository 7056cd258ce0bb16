"""The mistakes that a model was surest of, with thumbnails that are part of the page."""

from __future__ import annotations

import base64
import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from glint.adapters.images import Images
from glint.core.errors import ImageError
from glint.pipelines.report.content import file_name, words
from glint.vision.decode import Limits, decode

if TYPE_CHECKING:
    from glint.pipelines.evaluation import ScoredSplit

MAX_SHOWN = 24
THUMBNAIL_PX = 160
THREADS = 8


@dataclass(frozen=True)
class Mistake:
    """One wrongly labelled image. `thumbnail` is a data: address; where it is None, `reason` says why."""

    uri: str
    name: str
    truth: str
    guess: str
    confidence: float
    thumbnail: str | None
    reason: str | None


def most_confident_mistakes(
    scored: ScoredSplit, classes: tuple[str, ...], images: Images, limit: int = MAX_SHOWN
) -> list[Mistake]:
    """Up to `limit` mistakes, the surest first; only their images are read."""
    probabilities, truth = np.stack(scored.probabilities), np.asarray(scored.targets)
    guess, confidence = probabilities.argmax(1), probabilities.max(1)
    wrong = np.flatnonzero(guess != truth)
    chosen = wrong[np.argsort(-confidence[wrong], kind="stable")][:limit]
    with ThreadPoolExecutor(THREADS, "glint-thumbnails") as pool:
        thumbnails = list(pool.map(lambda i: _thumbnail(images, scored.uris[i]), chosen))
    return [
        Mistake(uri, file_name(uri), classes[truth[i]], classes[guess[i]], float(confidence[i]), picture, reason)
        for i, (picture, reason) in zip(chosen, thumbnails, strict=True)
        for uri in [scored.uris[i]]
    ]


def _thumbnail(images: Images, uri: str) -> tuple[str | None, str | None]:
    """A small JPEG as a data: address, or the reason why there is none."""
    try:
        pixels = decode(images.read(uri, None), Limits())
    except ImageError as error:
        return None, words(error.type)
    picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    picture.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii"), None
