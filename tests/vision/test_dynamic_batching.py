import threading
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
import torch

from glint.vision.dynamic_batching import DynamicBatcher, Row

SPOILT = 7


class Engine:
    """Answers each image with its own number twice over; fails where SPOILT is among them. The first call waits."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.began, self.go_on = threading.Event(), threading.Event()

    def score(self, images: torch.Tensor) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        self.sizes.append(len(images))
        self.began.set()
        assert self.go_on.wait(30)
        if (images == SPOILT).any():
            raise RuntimeError("spoilt")
        return images.flatten(1).repeat(1, 2).numpy()


def ask(batcher: DynamicBatcher, engine: Engine, numbers: range) -> dict[int, Future[Row]]:
    """The first image alone, and the others while it is scored."""
    with ThreadPoolExecutor(len(numbers)) as callers:
        answers = {}
        for at, number in enumerate(numbers):
            answers[number] = callers.submit(batcher.score_one, torch.full((1, 1, 1), float(number)))
            if at == 0:
                assert engine.began.wait(30)
        while len(batcher._waiting) < len(numbers) - 1:
            pass
        engine.go_on.set()
    return answers


def test_what_comes_while_a_batch_is_scored_makes_up_the_next() -> None:
    engine = Engine()
    answers = ask(DynamicBatcher(engine.score, 4), engine, range(6))
    assert engine.sizes == [1, 4, 1]
    assert {number: answer.result().tolist() for number, answer in answers.items()} == {n: [n, n] for n in range(6)}


def test_one_that_the_engine_fails_on_fails_alone() -> None:
    engine = Engine()
    answers = ask(DynamicBatcher(engine.score, 16), engine, range(5, 10))
    assert engine.sizes == [1, 4, 1, 1, 1, 1]
    with pytest.raises(RuntimeError, match="spoilt"):
        answers.pop(SPOILT).result()
    assert {number: answer.result().tolist() for number, answer in answers.items()} == {n: [n, n] for n in (5, 6, 8, 9)}


def test_a_mistake_in_scoring_leaves_no_caller_waiting() -> None:
    engine = Engine()
    batcher = DynamicBatcher(lambda images: engine.score(images)[:1], 16)
    answers = ask(batcher, engine, range(3))
    assert any(isinstance(answer.exception(), ValueError) for answer in answers.values())
