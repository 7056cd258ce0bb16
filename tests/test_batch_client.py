"""How a program follows a job."""

import asyncio
from collections.abc import Callable

import httpx
import pytest

from glint.batch_client import AsyncBatch, Batch
from glint.serving.batch_answers import JobProgress


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> tuple[Callable[..., httpx.Response], list[float]]:
    """A server that answers slower each time, and the pauses that were made."""
    now, paused, takes = [0.0], list[float](), iter([0.01, 0.5, 3.0, 0.0])

    def request(**_: object) -> httpx.Response:
        taken_s = next(takes)
        now[0] += taken_s
        progress = JobProgress(
            id="a",
            status="running" if taken_s else "completed",
            model=None,
            num_images=1,
            done=1,
            statuses={},
            labels={},
            decisions={},
            bottleneck=None,
        )
        return httpx.Response(200, text=progress.model_dump_json())

    async def sleep(seconds: float) -> None:
        paused.append(seconds)

    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("time.sleep", paused.append)
    monkeypatch.setattr("glint.batch_client.asyncio.sleep", sleep)
    return request, paused


def test_the_longer_an_answer_takes_the_longer_nobody_asks_again(
    answered: tuple[Callable[..., httpx.Response], list[float]],
) -> None:
    request, paused = answered
    assert Batch(request).wait("a").status == "completed"
    assert paused == pytest.approx([1.0, 10.0, 60.0])


def test_so_it_is_for_asyncio(answered: tuple[Callable[..., httpx.Response], list[float]]) -> None:
    request, paused = answered

    async def later(**asked: object) -> httpx.Response:
        return request(**asked)

    async def follow() -> list[str]:
        return [one.status async for one in AsyncBatch(later).watch("a")]

    assert asyncio.run(follow()) == ["running", "running", "running", "completed"]
    assert paused == pytest.approx([1.0, 10.0, 60.0])
