"""Batch jobs of a real server: drivers are Ray jobs, which live, die and are cancelled."""

import os
import select
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

import glint
from glint.pipelines.train import Trained
from glint.serving.batch_answers import JobProgress
from glint.serving.batch_serve import start_batch, stop_batch
from glint.settings import Settings
from glint.wiring import open_desk, open_supervisor

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def client(trained: Trained, settings: Settings, boards: Path, serve_port: int) -> Iterator[glint.Client]:
    mine = settings.model_copy(update={"batch_inputs": str(boards)})
    url = start_batch(partial(open_desk, mine), partial(open_supervisor, mine), port=serve_port)
    with glint.Client(url) as client:
        client.batch.create("boards", trained.model_uri, options={"top_k": 2})
        yield client
    stop_batch()


def until(client: glint.Client, id: str, reached: Callable[[JobProgress], bool]) -> JobProgress:
    """How far the job is when it has come so far; fails where it ends before."""
    for progress in client.batch.watch(id):
        if reached(progress):
            return progress
    raise AssertionError(f"{progress}\n{client.batch.logs(id).text}")


def driver_of(id: str) -> int:
    """The process of the driver itself, not the shell that Ray starts it by."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (entry / "cmdline").exists():
            words = (entry / "cmdline").read_text().split("\0")
            if "glint.cli.job" in words and id in words:
                return int(entry.name)
    raise AssertionError(f"no driver of {id} runs")


def test_a_job_that_is_submitted_ends_with_an_outcome_for_every_image(client: glint.Client, boards: Path) -> None:
    job = client.batch.submit("boards", str(boards))
    done = client.batch.wait(job.id)
    assert done.status == "completed", client.batch.logs(job.id).text
    assert done.statuses == {"ok": 278, "undecodable": 2}
    outcomes = list(client.batch.results(job.id))
    assert len({outcome.uri for outcome in outcomes}) == len(outcomes) == 280
    assert max(len(outcome.top_k) for outcome in outcomes) == 2
    assert {group.reason for group in client.batch.errors(job.id).groups} == {"empty", "truncated"}


def test_an_inline_list_is_scored_and_a_mistake_is_told_without_further_attempts(
    client: glint.Client, boards: Path, tmp_path: Path
) -> None:
    pictures = sorted(str(path) for path in (boards / "spur").iterdir())[:3]
    first = client.batch.submit("boards", [*pictures, pictures[0]])
    listed = boards / "night.csv"
    listed.write_text("uri\n/etc/hostname\n")
    second = client.batch.submit("boards", str(listed))
    assert client.batch.wait(first.id).statuses == {"ok": 3}
    assert client.batch.wait(second.id).status == "failed"
    told = client.batch.job(second.id)
    assert told.attempt == 1
    assert told.error is not None
    assert "GLINT_BATCH_INPUTS" in told.error


def test_a_driver_that_dies_is_followed_by_another_which_completes_the_job(client: glint.Client, boards: Path) -> None:
    job = client.batch.submit("boards", str(boards))
    until(client, job.id, lambda progress: progress.status == "running")
    os.kill(driver_of(job.id), signal.SIGKILL)
    done = client.batch.wait(job.id)
    assert (done.status, done.done) == ("completed", 280), client.batch.logs(job.id).text
    assert client.batch.job(job.id).attempt == 2


def test_cancelling_ends_the_driver_and_a_retry_completes_the_job(client: glint.Client, boards: Path) -> None:
    job = client.batch.submit("boards", str(boards))
    until(client, job.id, lambda progress: progress.status == "running")
    driver = os.pidfd_open(driver_of(job.id))
    assert client.batch.cancel(job.id).status == "cancelled"
    assert select.select([driver], [], [], 5)[0], "the driver still runs"
    os.close(driver)
    assert client.batch.progress(job.id).done <= 280
    client.batch.retry(job.id)
    done = client.batch.wait(job.id)
    assert (done.status, done.done) == ("completed", 280), client.batch.logs(job.id).text
