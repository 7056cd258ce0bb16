import random

import pytest

from glint.serving.throttle import MOST, SURPLUS, Throttle

WAITING = 3
"""Requests that may wait, as they may in any server."""


class Backend:
    """A server that answers up to `capacity` requests of each second, behind a throttle; time passes with requests."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.now = capacity, 0.0
        self.throttle = Throttle(lambda: self.now, random.Random(0).random)

    def second(self, requests: int) -> tuple[int, int]:
        """How many of so many requests within a second get past the throttle, and how many are answered."""
        passed = answered = 0
        room = 0.0
        for _ in range(requests):
            self.now += 1 / requests
            room = min(WAITING, room + self.capacity / requests)
            if self.throttle.refuses():
                continue
            passed += 1
            is_answered = room >= 1
            room -= is_answered
            answered += is_answered
            self.throttle.ended(is_answered)
        return passed, answered


def test_nothing_is_refused_while_all_is_answered() -> None:
    backend = Backend(capacity=200)
    assert [backend.second(100) for _ in range(5)] == [(100, 100)] * 5


def test_requests_that_have_no_answer_yet_do_not_count() -> None:
    throttle = Throttle(chance=lambda: 0.0)
    assert not any(throttle.refuses() for _ in range(100))


def test_a_few_refusals_let_everything_through() -> None:
    backend = Backend(capacity=80)
    assert [backend.second(100)[0] for _ in range(5)][1:] == [100] * 4


def test_what_is_far_too_much_is_mostly_refused_at_the_door_and_the_server_stays_busy() -> None:
    backend = Backend(capacity=100)
    passed, answered = [backend.second(1000) for _ in range(10)][-1]
    assert passed == pytest.approx(SURPLUS * 100, rel=0.3)
    assert answered > 80


def test_recovers_within_seconds_of_the_flood() -> None:
    backend = Backend(capacity=100)
    for _ in range(10):
        backend.second(1000)
    assert [backend.second(90)[1] for _ in range(5)][-1] > 80


def test_some_requests_still_try_a_server_that_has_answered_nothing() -> None:
    backend = Backend(capacity=0)
    assert [backend.second(1000)[0] for _ in range(10)][-1] == pytest.approx((1 - MOST) * 1000, rel=0.3)
