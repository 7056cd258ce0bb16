"""Scores the images of several callers together, for a GPU takes about as long for a few as for one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np
import torch

Row = np.ndarray[tuple[int], np.dtype[np.float32]]


class DynamicBatcher:
    """What comes while a batch is scored makes up the next one, so that no image waits for company.

    `score` takes images (N, C, S, S) to rows (N, K), with N up to `batch_size`. Where a batch fails its images are
    scored one by one, and only those that fail again are lost. There is no thread of its own: a caller scores for all
    that wait.
    """

    def __init__(self, score: Callable[[torch.Tensor], np.ndarray[Any, Any]], batch_size: int) -> None:
        self._score, self._batch_size = score, batch_size
        self._changed = threading.Condition()
        self._waiting: list[tuple[torch.Tensor, Future[Row]]] = []
        self._busy = False

    def score_one(self, image: torch.Tensor) -> Row:
        """One image (C, S, S) -> its row (K,); raises what `score` raises for it."""
        mine: Future[Row] = Future()
        with self._changed:
            self._waiting.append((image, mine))
        while batch := self._next_batch(mine):
            try:
                self._score_all(batch)
            finally:
                for _, done in batch:
                    if not done.done():
                        done.set_exception(RuntimeError("scoring broke off"))
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()
        return mine.result()

    def _next_batch(self, mine: Future[Row]) -> list[tuple[torch.Tensor, Future[Row]]]:
        """What this caller is to score now; empty once its own image is done."""
        with self._changed:
            self._changed.wait_for(lambda: mine.done() or not self._busy)
            if mine.done():
                return []
            batch, self._waiting = self._waiting[: self._batch_size], self._waiting[self._batch_size :]
            self._busy = True
            return batch

    def _score_all(self, batch: list[tuple[torch.Tensor, Future[Row]]]) -> None:
        try:
            rows = self._score(torch.stack([image for image, _ in batch]))
        except RuntimeError as error:
            if len(batch) == 1:
                batch[0][1].set_exception(error)
            else:
                for alone in batch:
                    self._score_all([alone])
            return
        for row, (_, done) in zip(rows, batch, strict=True):
            done.set_result(row)
