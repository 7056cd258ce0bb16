"""The limiter of request units, on a clock of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from glint.adapters import limiter
from glint.adapters.limiter import START_RU_S, RequestUnitLimiter


class World:
    """A clock that only sleeping moves, so that a minute takes no time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(limiter.asyncio, "sleep", self.sleep)

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def spend(
    world: World, limit: RequestUnitLimiter, seconds: float, refuse: Callable[[int], bool] | None = None
) -> float:
    """Spend 100 RU at a time as fast as the limiter lets one, for that long; returns RU/s."""
    began, spent = world.now, 0

    async def run() -> None:
        nonlocal spent
        while world.now - began < seconds:
            await limit.spend(100)
            spent += 1
            if refuse and refuse(spent):
                limit.refused()

    asyncio.run(run())
    return 100 * spent / (world.now - began)


def test_a_ceiling_is_kept_to(world: World) -> None:
    limit = RequestUnitLimiter(ceiling=1000, clock=world.clock)
    assert spend(world, limit, 20) == pytest.approx(1000, rel=0.05)
    assert limit.rate == 1000


def test_without_refusals_the_rate_doubles_each_second(world: World) -> None:
    limit = RequestUnitLimiter(clock=world.clock)
    spend(world, limit, 4)
    assert 8 * START_RU_S < limit.rate < 20 * START_RU_S


def test_what_is_not_spent_does_not_grow(world: World) -> None:
    limit = RequestUnitLimiter(clock=world.clock)

    async def trickle() -> None:
        for _ in range(100):
            await limit.spend(100)
            world.now += 1

    asyncio.run(trickle())
    assert limit.rate == START_RU_S


def test_a_service_with_less_to_give_is_met_near_what_it_gives(world: World) -> None:
    limit = RequestUnitLimiter(clock=world.clock)
    capacity, window = 2000, [0.0, 0.0]

    def too_many(_: int) -> bool:
        if world.now - window[0] >= 1:
            window[:] = [world.now, 0.0]
        window[1] += 100
        return window[1] > capacity

    spend(world, limit, 60, too_many)
    assert 0.4 * capacity < spend(world, limit, 30, too_many) < 1.5 * capacity


def test_a_storm_takes_the_rate_down_to_its_floor_and_is_forgotten_in_ten_seconds(world: World) -> None:
    limit = RequestUnitLimiter(ceiling=10_000, clock=world.clock)
    spend(world, limit, 10)
    assert limit.rate == 10_000
    spend(world, limit, 30, lambda number: number % 2 == 0)
    assert limit.rate == pytest.approx(limiter.FLOOR * 10_000)
    spend(world, limit, 10)
    assert limit.rate > 8000


def test_refusals_of_requests_that_were_under_way_together_count_once(world: World) -> None:
    limit = RequestUnitLimiter(clock=world.clock)
    for _ in range(32):
        limit.refused()
    assert limit.rate == pytest.approx(limiter.CUT * START_RU_S)
