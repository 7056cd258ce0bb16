"""What the stores share: filters, keys, checks, and the bridge for synchronous callers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from glint.core.errors import GlintError
from glint.core.stores import Bridge, OutcomeFilter, partition_key


@pytest.fixture
def bridge() -> Iterator[Bridge]:
    bridge = Bridge()
    yield bridge
    bridge.close()


async def loop_and_thread() -> tuple[int, str]:
    await asyncio.sleep(0)
    return id(asyncio.get_running_loop()), threading.current_thread().name


async def refuse() -> None:
    raise GlintError("limit must be 1 to 1000, got 0")


async def count(end: int) -> AsyncIterator[int]:
    for number in range(end):
        await asyncio.sleep(0)
        yield number


def test_bridge_returns_what_the_coroutine_returns(bridge: Bridge) -> None:
    assert bridge.run(asyncio.sleep(0, "done")) == "done"


def test_bridge_raises_what_the_coroutine_raises_and_goes_on(bridge: Bridge) -> None:
    with pytest.raises(GlintError, match="limit must be 1 to 1000, got 0"):
        bridge.run(refuse())
    assert bridge.run(asyncio.sleep(0, "done")) == "done"


def test_bridge_runs_everything_on_one_loop_whichever_thread_asks(bridge: Bridge) -> None:
    with ThreadPoolExecutor(4) as threads:
        seen = set(threads.map(lambda _: bridge.run(loop_and_thread()), range(16)))
    assert len(seen) == 1


def test_bridge_runs_calls_of_several_threads_at_once(bridge: Bridge) -> None:
    async def meet() -> None:
        await asyncio.wait_for(barrier.wait(), timeout=10)

    async def make_barrier() -> asyncio.Barrier:
        return asyncio.Barrier(3)

    barrier = bridge.run(make_barrier())
    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(lambda _: bridge.run(meet()), range(3))) == [None] * 3


def test_bridge_serves_a_caller_that_has_a_loop_of_its_own(bridge: Bridge) -> None:
    async def caller() -> str:
        return bridge.run(asyncio.sleep(0, "done"))

    assert asyncio.run(caller()) == "done"


def test_bridge_collects_an_asynchronous_iterator_in_order(bridge: Bridge) -> None:
    assert bridge.collect(count(5)) == [0, 1, 2, 3, 4]
    assert bridge.collect(count(0)) == []


def test_a_closed_bridge_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    bridge = Bridge()
    assert set(threading.enumerate()) > before
    bridge.close()
    assert set(threading.enumerate()) == before


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"status": "okay"}, "status 'okay' must be one of ok, undecodable, missing,"),
        ({"decision": "keep"}, "decision 'keep' must be one of accept, review, reject"),
        ({"min_confidence": -0.1}, "confidence must be a range within 0 and 1, got -0.1 to 1.0"),
        ({"max_confidence": 50.0}, "confidence must be a range within 0 and 1, got 0.0 to 50.0"),
        ({"min_confidence": 0.9, "max_confidence": 0.1}, "confidence must be a range within 0 and 1, got 0.9 to 0.1"),
        ({"min_confidence": float("nan")}, "confidence must be a range within 0 and 1, got nan to 1.0"),
    ],
)
def test_a_filter_that_nothing_could_pass_is_refused(values: dict[str, str], said: str) -> None:
    with pytest.raises(GlintError) as raised:
        OutcomeFilter(**values)  # type: ignore[arg-type]
    assert str(raised.value).startswith(said)


def test_a_job_spreads_over_its_partitions_and_over_no_other_jobs() -> None:
    mine = {partition_key("j1", chunk, 4) for chunk in range(20)}
    assert len(mine) == 4
    assert not mine & {partition_key("j2", chunk, 4) for chunk in range(20)}
