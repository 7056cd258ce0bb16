"""The board on which training workers write how far they are, and the driver's watch over it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from glint.core.progress import Progress
from glint.core.threads import in_thread

T = TypeVar("T")


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


def open_board() -> Any:
    """A handle of a new board, on this process's own node: another one may die while training goes on."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0)(ProgressBoard).options(scheduling_strategy=here).remote()


@dataclass
class Seen:
    """The sum of the news of a training."""

    bad_images: dict[str, tuple[str, str]] = field(default_factory=dict)
    images_per_s: float | None = None
    """Training images a second, from the first news of images to the last, validation included; None after one."""


class Watcher:
    """Reads the board from the driver while work goes on; `heed` gets the metrics of each finished epoch."""

    def __init__(self, progress: Progress, heed: Callable[[list[dict[str, float]]], None]) -> None:
        self.board: Any = open_board()
        self.seen = Seen()
        self._progress = progress
        self._heed = heed
        self._first: tuple[float, int] | None = None

    def run(self, work: Callable[[], T], stage: str, total: int) -> T:
        """Show progress until `work`, in a thread of its own, returns or raises."""
        self._progress.begin(stage, total, "images")
        result = in_thread(work, self._look)
        self._look()
        self._progress.end()
        ray.kill(self.board)
        return result

    def _look(self) -> None:
        news: News = ray.get(self.board.read.remote())
        self.seen.bad_images = news.bad_images
        if news.epochs:
            self._heed(news.epochs)
        if news.images == 0:
            return
        now, (since, before) = time.monotonic(), self._first or (time.monotonic(), news.images)
        self._first = (since, before)
        if news.images > before:
            self.seen.images_per_s = (news.images - before) / (now - since)
        stage = f"epoch {news.epoch + 1}  loss {news.loss:.3f}" if news.epoch >= 0 else "frozen backbone"
        pace = "" if self.seen.images_per_s is None else f"  {self.seen.images_per_s:.0f} images/s"
        self._progress.update(news.images, stage + pace)
