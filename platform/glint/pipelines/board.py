"""The board on which training workers write how far they are, and the driver's watch over it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ray

from glint.core.progress import Progress

LOOK_EVERY_S = 0.3


@dataclass
class News:
    """What has come since the driver last looked."""

    epoch: int = 0
    images: int = 0
    """Training images seen since the first epoch."""
    loss: float = float("nan")
    epochs: list[dict[str, float]] = field(default_factory=list)
    bad_images: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Reason and message by uri."""


class ProgressBoard:
    """Collects news from workers; an actor on Ray."""

    def __init__(self) -> None:
        self._news = News()

    def step(self, epoch: int, images: int, loss: float) -> None:
        """So many images have been trained on since the first epoch, at this mean loss in the present one."""
        self._news.epoch, self._news.images, self._news.loss = epoch, images, loss

    def epoch(self, metrics: dict[str, float]) -> None:
        """An epoch is over."""
        self._news.epochs.append(metrics)

    def bad_image(self, uri: str, kind: str, message: str) -> None:
        """An image could not be read or decoded."""
        self._news.bad_images[uri] = (kind, message)

    def read(self) -> News:
        """Hand over what has come; each finished epoch is handed over once."""
        news = self._news
        self._news = News(news.epoch, news.images, news.loss, [], news.bad_images)
        return news


@dataclass
class Watch:
    """The sum of the news, complete when the watch is over."""

    board: Any
    """Handle of the ProgressBoard actor, for workers."""
    bad_images: dict[str, tuple[str, str]] = field(default_factory=dict)
    images_per_s: float = 0.0
    """Training images a second, from the first news of images to the last, validation included."""


@contextmanager
def watch(
    progress: Progress, stage: str, total: int, heed: Callable[[list[dict[str, float]]], None]
) -> Iterator[Watch]:
    """Show training progress while the block runs; `heed` gets each finished epoch's metrics, in this process."""
    seen = Watch(ray.remote(num_cpus=0)(ProgressBoard).remote())
    done = threading.Event()
    progress.begin(stage, total, "images")
    with ThreadPoolExecutor(1, "glint-watch") as executor:
        watching = executor.submit(_watch, seen, done, progress, heed)
        try:
            yield seen
        finally:
            done.set()
            watching.result()
            progress.end()
            ray.kill(seen.board)


def _watch(
    seen: Watch, done: threading.Event, progress: Progress, heed: Callable[[list[dict[str, float]]], None]
) -> None:
    first: tuple[float, int] | None = None
    last = False
    while not last:
        last = done.wait(LOOK_EVERY_S)
        news: News = ray.get(seen.board.read.remote())
        seen.bad_images = news.bad_images
        if news.epochs:
            heed(news.epochs)
        if news.images == 0:
            continue
        first = first or (time.monotonic(), news.images)
        if news.images > first[1]:
            seen.images_per_s = (news.images - first[1]) / (time.monotonic() - first[0])
        progress.update(news.images, f"epoch {news.epoch + 1}  loss {news.loss:.3f}  {seen.images_per_s:.0f} images/s")
