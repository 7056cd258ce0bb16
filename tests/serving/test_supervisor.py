"""Supervision round by round: drivers are played, the store is a real one, and supervisors may be two."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from tests.serving.drivers import PlayedDrivers
from tests.stores.store_documents import chunk_of, job

from glint.adapters.sqlite_store import SqliteStore
from glint.core.books import Books
from glint.core.submission import LEASE, DriverStatus, JobInput, Submission
from glint.pipelines.bottleneck import Work
from glint.pipelines.chunk_answers import Written
from glint.serving.supervisor import Supervisor
from glint.serving.webhook import SIGNATURE, TIMESTAMP, Webhook, signature


@pytest.fixture
def store(tmp_path: Path) -> SqliteStore:
    return SqliteStore(tmp_path / "results.db")


@pytest.fixture
def books(store: SqliteStore) -> Books:
    return Books(store)


def submission(id: str, **changes: object) -> Submission:
    values: dict[str, object] = {
        "id": id,
        "endpoint": "boards",
        "deployment": "main",
        "model": "models:/boards/3",
        "input": JobInput(uri="az://images/line-4"),
        "request_digest": "d",
        "created_at": datetime.fromtimestamp(0, UTC),
    }
    return Submission.model_validate(values | changes)


async def unheard(told: Submission) -> bool:
    raise AssertionError(f"nobody asked to be told of {told.id}")


async def rounds(*supervisors: Supervisor) -> None:
    await asyncio.gather(*(one.round() for one in supervisors))


def test_drivers_start_in_turn_and_no_more_at_once_than_allowed(books: Books) -> None:
    async def play() -> None:
        for id, priority in (("a", 0), ("b", 5), ("c", 0)):
            await books.put_submission(submission(id, priority=priority))
        drivers = PlayedDrivers()
        supervisor = Supervisor(books, drivers, unheard, max_running=1)
        await supervisor.round()
        await supervisor.round()
        assert drivers.submitted == [("glint-b-1-0", "b")]
        await books.change("b", lambda one: one.end("completed"))
        drivers.statuses["glint-b-1-0"] = "succeeded"
        await supervisor.round()
        assert drivers.submitted[1:] == [("glint-a-1-0", "a")]

    asyncio.run(play())


def test_a_driver_that_died_is_followed_by_as_many_as_are_allowed(books: Books) -> None:
    async def play() -> None:
        await books.put_submission(submission("a", max_attempts=2))
        drivers = PlayedDrivers()
        supervisor = Supervisor(books, drivers, unheard)
        for attempt in (1, 2):
            await supervisor.round()
            assert drivers.submitted[-1] == (f"glint-a-{attempt}-0", "a")
            drivers.statuses[f"glint-a-{attempt}-0"] = "failed"
        await supervisor.round()
        found = await books.submission("a")
        assert found is not None
        assert (found[0].status, found[0].attempt) == ("failed", 2)
        assert found[0].error == "its driver died, 2 times of 2; see the logs"
        assert await books.open_submissions() == []

    asyncio.run(play())


def test_a_second_supervisor_starts_nothing_twice(books: Books) -> None:
    async def play() -> None:
        await books.put_submission(submission("a"))
        drivers = PlayedDrivers()
        both = [Supervisor(books, drivers, unheard) for _ in range(2)]
        await rounds(*both)
        drivers.statuses["glint-a-1-0"] = "failed"
        await rounds(*both)
        await rounds(*both)
        assert drivers.submitted == [("glint-a-1-0", "a"), ("glint-a-2-0", "a")]

    asyncio.run(play())


def test_servers_with_a_ray_each_start_one_driver_between_them(books: Books) -> None:
    async def play() -> None:
        for id in "abcde":
            await books.put_submission(submission(id))
        rays = [PlayedDrivers("10.0.0.1:6379"), PlayedDrivers("10.0.0.2:6379")]
        both = [Supervisor(books, drivers, unheard, max_running=5) for drivers in rays]
        for _ in range(3):
            await rounds(*both)
        assert sorted(id for drivers in rays for _, id in drivers.submitted) == list("abcde")
        for drivers in rays:
            for _, id in drivers.submitted:
                found = await books.submission(id)
                assert found is not None
                assert found[0].cluster == drivers.cluster

    asyncio.run(play())


def test_a_job_whose_ray_has_gone_silent_is_taken_over(books: Books) -> None:
    async def play() -> None:
        running = submission("a", status="running").held("10.0.0.1:6379")
        await books.put_submission(running)
        here = PlayedDrivers("10.0.0.2:6379")
        await Supervisor(books, here, unheard).round()
        assert here.submitted == []
        await books.put_submission(running.model_copy(update={"seen_at": datetime.now(UTC) - LEASE}))
        await Supervisor(books, here, unheard).round()
        assert here.submitted == [("glint-a-2-0", "a")]  # its driver died with its Ray, which counts

    asyncio.run(play())


def test_a_driver_that_starts_for_long_is_not_taken_for_silent(books: Books) -> None:
    async def play() -> None:
        here = PlayedDrivers()
        await books.put_submission(submission("a"))
        await Supervisor(books, here, unheard).round()
        long_ago = datetime.now(UTC) - LEASE
        await books.change("a", lambda one: one.model_copy(update={"seen_at": long_ago}))
        await Supervisor(books, here, unheard).round()
        found = await books.submission("a")
        assert found is not None
        assert found[0].is_held_elsewhere("10.0.0.2:6379")

    asyncio.run(play())


def test_an_id_that_is_used_again_has_nothing_to_do_with_the_drivers_of_its_former_life(books: Books) -> None:
    async def play() -> None:
        drivers = PlayedDrivers()
        drivers.statuses["glint-a-1-0"] = "succeeded"
        await books.put_submission(submission("a", created_at=datetime.fromtimestamp(1, UTC)))
        await Supervisor(books, drivers, unheard).round()
        assert drivers.submitted == [("glint-a-1-3e8", "a")]

    asyncio.run(play())


def test_what_a_ray_that_was_restarted_has_forgotten_is_started_again(books: Books) -> None:
    async def play() -> None:
        await books.put_submission(submission("a", status="running"))
        drivers = PlayedDrivers()
        await Supervisor(books, drivers, unheard).round()
        assert drivers.submitted == [("glint-a-1-0", "a")]

    asyncio.run(play())


def test_a_webhook_is_told_once_with_a_signature_that_its_secret_makes(books: Books, store: SqliteStore) -> None:
    heard: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        heard.append(request)
        return httpx.Response(204)

    async def play() -> None:
        url = "https://hooks.example.com/done"
        await books.put_submission(submission("a", webhook=url).end("completed"))
        webhook = Webhook("s3cret", store, httpx.MockTransport(answer))
        for _ in range(3):
            await Supervisor(books, PlayedDrivers(), webhook.notify).round()

    asyncio.run(play())
    assert len(heard) == 1
    body = heard[0].content
    assert b'"status":"completed"' in body
    assert heard[0].headers[SIGNATURE] == signature("s3cret", heard[0].headers[TIMESTAMP], body)
    assert heard[0].headers[SIGNATURE] != signature("other", heard[0].headers[TIMESTAMP], body)


def test_a_notice_says_what_held_the_job_up_and_what_became_of_its_images(books: Books, store: SqliteStore) -> None:
    heard: list[dict] = []
    work = Work()
    work.begin([("node", {"read": 1, "decode": 1, "infer": 1, "write": 1, "cores": 1})])
    work.add(chunk_of("known", 0, 50)[0], Written("", 0.1))
    spent = work.bottleneck()
    assert spent is not None

    def answer(request: httpx.Request) -> httpx.Response:
        heard.append(json.loads(request.content))
        return httpx.Response(204)

    async def play() -> None:
        await store.put_job(job("known", bottleneck=spent))
        await store.put_chunk(*chunk_of("known", 0, 50))
        for id in ("known", "unknown"):
            await books.put_submission(submission(id, webhook="https://hooks.example.com/done").end("completed"))
        webhook = Webhook("s3cret", store, httpx.MockTransport(answer))
        await Supervisor(books, PlayedDrivers(), webhook.notify).round()

    asyncio.run(play())
    told = {one["id"]: one["bottleneck"] for one in heard}
    assert told["known"]["line"] == spent.line
    assert told["unknown"] is None
    assert {one["id"]: one["progress"]["done"] for one in heard} == {"known": 50, "unknown": 0}


def test_what_one_submission_suffers_leaves_the_others_alone(books: Books, store: SqliteStore) -> None:
    class Troubled(PlayedDrivers):
        def status(self, name: str) -> DriverStatus | None:
            if name == "glint-b-1-0":
                raise RuntimeError("nobody knows")
            return super().status(name)

        def submit(self, name: str, job_id: str) -> None:
            if job_id == "c":
                raise RuntimeError("no")
            super().submit(name, job_id)

    async def play() -> None:
        await books.put_submission(submission("a", webhook="https://hooks.example.com:abc/x").end("completed"))
        for id in ("b", "c", "d"):
            await books.put_submission(submission(id))
        taken = httpx.MockTransport(lambda request: httpx.Response(204))
        drivers, webhook = Troubled(), Webhook("s3cret", store, taken)
        await Supervisor(books, drivers, webhook.notify, max_running=2).round()
        assert drivers.submitted == [("glint-d-1-0", "d")]  # b may run, for all that is known
        assert {one.id: one.notices for one in await books.open_submissions()} == {"a": 1, "b": 0, "c": 0, "d": 0}

    asyncio.run(play())


def test_a_webhook_that_refuses_is_told_again_later(books: Books, store: SqliteStore) -> None:
    async def play() -> None:
        url = "https://hooks.example.com/done"
        await books.put_submission(submission("a", webhook=url).end("failed", "why"))
        webhook = Webhook("s3cret", store, httpx.MockTransport(lambda request: httpx.Response(500)))
        await Supervisor(books, PlayedDrivers(), webhook.notify).round()
        assert [(one.notices, one.notified) for one in await books.open_submissions()] == [(1, False)]

    asyncio.run(play())
