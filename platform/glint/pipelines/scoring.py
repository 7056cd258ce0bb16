"""Scoring: one process a node reads, decodes and infers, in threads that overlap.

Nothing but manifest rows goes in and nothing but results comes out: pixels never cross the object store.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from glint.adapters.images import Images
from glint.core.errors import GlintError, ImageError
from glint.vision.engines.engine import num_cores
from glint.vision.predictor import Predictor, Preparer

ENGINE_ERROR = "engine_error"
UNEXPECTED = "unexpected_error"
GPU_BATCH = 64
ENOUGH = 8
"""Images that an engine has to fail on, without one that it scores, to be what is broken itself."""
NOT_FINITE = "the engine gave probabilities that are not finite"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scored:
    """One image's probabilities (C,), or why there are none; its size in pixels and what each step took.

    Where inferring is another's task, its pixels (C, S, S) as uint8. `timings_ms` has read, decode and infer, and wait:
    for a thread to decode or infer in.
    """

    probabilities: np.ndarray[Any, Any] | None = None
    error: ImageError | None = None
    pixels: torch.Tensor | None = None
    width: int | None = None
    height: int | None = None
    timings_ms: dict[str, float] | None = None


class Notes(Protocol):
    """Told of images, by the numbers of their rows; called from several threads."""

    def begin(self, row: int) -> None:
        """A step of it begins."""

    def pause(self, row: int) -> None:
        """It waits for its next step."""

    def end(self, row: int) -> None:
        """It is done with."""


class _Unnoted:
    """Nobody needs to know."""

    def begin(self, row: int) -> None:
        pass

    pause = end = begin


UNNOTED = _Unnoted()


@dataclass
class _Image:
    """An image on its way through the steps."""

    uri: str
    etag: str | None
    row: int
    notes: Notes
    room: threading.Semaphore
    data: bytes = b""
    pixels: torch.Tensor | None = None
    width: int | None = None
    height: int | None = None
    timings_ms: dict[str, float] = field(default_factory=dict)
    waits_since: float = 0.0
    scored: Future[Scored] = field(default_factory=Future)

    def begin(self) -> float:
        """The wait for a thread is over."""
        self.notes.begin(self.row)
        now = time.perf_counter()
        self.timings_ms["wait"] = self.timings_ms.get("wait", 0.0) + (now - self.waits_since) * 1000
        return now

    def end(self, step: str, began: float, share: int = 1) -> None:
        """A step is done, of `share` images together; the wait for the next one begins."""
        self.notes.pause(self.row)
        self.waits_since = time.perf_counter()
        self.timings_ms[step] = (self.waits_since - began) * 1000 / share

    def result(self, answer: np.ndarray[Any, Any] | ImageError | None) -> None:
        """What became of it; None: it was decoded."""
        row, error = (None, answer) if isinstance(answer, ImageError) else (answer, None)
        self.leave()  # before whoever waits goes on: what it says next must not overtake this
        self.scored.set_result(Scored(row, error, self.pixels, self.width, self.height, self.timings_ms))

    def fail(self, error: BaseException) -> None:
        """Something went wrong that is not the image's fault."""
        self.leave()
        self.scored.set_exception(error)

    def leave(self) -> None:
        """It is on its way no more."""
        self.notes.end(self.row)
        self.room.release()


class Decoder:
    """Reads and decodes images by their addresses; `concurrency` of them are decoded at once.

    Both steps have threads of their own. May be called from several threads, which fill each other's gaps. `room` is
    how many decoded images a further step may hold up.
    """

    def __init__(self, preparer: Preparer, images: Images, concurrency: int | None = None, room: int = 0) -> None:
        self.images = images
        self.threads = {"read": images.read_threads, "decode": concurrency or num_cores()}
        self._preparer = preparer
        self._pools = {step: ThreadPoolExecutor(num, f"glint-{step}") for step, num in self.threads.items()}
        # What is read and not yet done with is in memory, so that there is a bound to it.
        self._room = threading.Semaphore(self.threads["read"] + 2 * self.threads["decode"] + room)
        torch.set_num_threads(1)

    def score(
        self,
        uris: Sequence[str],
        etags: Sequence[str | None],
        notes: Notes = UNNOTED,
        rows: Sequence[int] | None = None,
    ) -> list[Scored]:
        """One result for each address, in order, whatever becomes of its neighbours; `notes` are told of `rows`.

        Raises RuntimeError for an engine that fails on every image.
        """
        images = [
            _Image(uri, etag, row, notes, self._room)
            for uri, etag, row in zip(uris, etags, range(len(uris)) if rows is None else rows, strict=True)
        ]
        for image in images:
            self._room.acquire()
            self._next("read", self._read, image)
        results = [image.scored.result() for image in images]
        self._check(results)
        return results

    def _check(self, results: Sequence[Scored]) -> None:
        """Nothing to say of them all together."""

    def _next(self, step: str, work: Callable[[_Image], None], image: _Image) -> None:
        image.waits_since = time.perf_counter()
        self._pools[step].submit(_guarded, work, image)

    def _read(self, image: _Image) -> None:
        began = image.begin()
        image.data = self.images.read(image.uri, image.etag)
        image.end("read", began)
        self._next("decode", self._decode, image)

    def _decode(self, image: _Image) -> None:
        began = image.begin()
        prepared = self._preparer.prepare(image.data)
        image.data = b""
        image.pixels, image.width, image.height = prepared.pixels, prepared.width, prepared.height
        image.end("decode", began)
        self._decoded(image)

    def _decoded(self, image: _Image) -> None:
        """Nothing follows here: its pixels are its result."""
        image.result(None)


class Scorer(Decoder):
    """Scores images by their addresses; `concurrency` of them are decoded at once.

    On a CPU the thread that decoded an image infers it too: to hand it over cost 0.4 ms of a core. On a GPU a further
    thread infers those that wait together.
    """

    def __init__(self, open_predictor: Callable[[], Predictor], images: Images, concurrency: int | None = None) -> None:
        self.predictor = open_predictor()
        on_gpu = torch.cuda.is_available()
        self._batch = GPU_BATCH if on_gpu else 1
        super().__init__(self.predictor, images, concurrency, 2 * self._batch)
        if on_gpu:
            self.threads["infer"] = 1
            self._pools["infer"] = ThreadPoolExecutor(1, "glint-infer")
        self._waiting: deque[_Image] = deque()

    def _check(self, results: Sequence[Scored]) -> None:
        check_engine(results)

    def _decoded(self, image: _Image) -> None:
        self._waiting.append(image)
        if "infer" in self._pools:
            self._pools["infer"].submit(self._infer_waiting)
        else:
            self._infer_waiting()

    def _infer_waiting(self) -> None:
        """Infer what waits, up to a batch; nothing where an earlier call has taken it along."""
        images: list[_Image] = []
        while len(images) < self._batch:
            try:
                images.append(self._waiting.popleft())
            except IndexError:
                break
        began = [image.begin() for image in images]
        try:
            stacked = torch.stack([image.pixels for image in images]) if images else None  # type: ignore[misc]
            answers = [] if stacked is None else infer(self.predictor, stacked)
        except BaseException as error:  # noqa: BLE001 - the edge of a thread: who waits for the images is told
            for image in images:
                image.fail(error)
            return
        for image, since, answer in zip(images, began, answers, strict=True):
            image.pixels = None
            image.end("infer", since, len(images))
            image.result(answer)


def infer(predictor: Predictor, images: torch.Tensor) -> list[np.ndarray[Any, Any] | ImageError]:
    """Probabilities (C,) of each image (N, C, S, S), all of them finite, or why the engine fails on it.

    A batch that fails is halved until the image that it fails on stands alone.
    """
    try:
        return [row if np.isfinite(row).all() else _engine_error(NOT_FINITE) for row in predictor.score(images)]
    except Exception as error:
        if len(images) == 1:
            logger.debug("the engine fails on an image", exc_info=True)  # the outcome says so
            return [_engine_error(_line(error) or "the engine failed")]
    half = len(images) // 2
    return [*infer(predictor, images[:half]), *infer(predictor, images[half:])]


def _engine_error(said: str) -> ImageError:
    return ImageError("failed", ENGINE_ERROR, said)


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0][:500]


def _guarded(work: Callable[[_Image], None], image: _Image) -> None:
    try:
        work(image)
    except ImageError as error:
        image.result(error)
    except GlintError as mistake:
        image.fail(mistake)
    except Exception as error:  # what nobody foresaw in one image is no reason to lose the others
        logger.warning("%s cannot be scored", image.uri, exc_info=True)
        image.result(ImageError("failed", UNEXPECTED, f"{type(error).__name__}: {_line(error)}"))
    except BaseException as error:  # noqa: BLE001 - the edge of a thread: who waits for the image is told
        image.fail(error)


def check_engine(results: Sequence[Scored]) -> None:
    """Raise RuntimeError where ENOUGH images reached the engine and it failed on all: no image is to blame.

    With fewer they may be: each is an outcome that says what the engine said, and the error threshold judges them.
    """
    reached = [
        row for row in results if row.probabilities is not None or (row.error and row.error.type == ENGINE_ERROR)
    ]
    if len(reached) >= ENOUGH and all(row.error for row in reached):
        raise RuntimeError(f"the engine fails on every image: {reached[0].error}")
