"""Batch jobs of a real server: drivers are Ray jobs, which live, die and are cancelled."""

import asyncio
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import ray
from ray.dashboard.utils import ray_address_to_api_server_url
from ray.job_submission import JobSubmissionClient

import glint
from glint.core.books import Books
from glint.core.stores import Bridge
from glint.core.submission import JobInput, Submission
from glint.pipelines.training_run import Trained
from glint.serving.batch_answers import JobProgress
from glint.serving.batch_serve import start_batch, stop_batch
from glint.settings import Settings
from glint.wiring import driver_environment, open_desk, open_store, open_supervisor

pytestmark = pytest.mark.slow
REPOSITORY = Path(__file__).resolve().parents[2]
NUM_IMAGES = 280
COPIES = 10
MANY = COPIES * NUM_IMAGES
SLOWLY = {"mini_batch_size": 5, "concurrency": 1}
"""Options that write a few images at a time: a job over many is met half done."""


@pytest.fixture(scope="module")
def many_boards(boards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The boards several times over: enough for a job that lasts for seconds."""
    folder = tmp_path_factory.mktemp("many")
    for copy in range(COPIES):
        shutil.copytree(boards, folder / str(copy), copy_function=os.link, ignore=shutil.ignore_patterns("*.csv"))
    return folder


@pytest.fixture(scope="module")
def client(
    trained: Trained, settings: Settings, boards: Path, many_boards: Path, serve_port: int
) -> Iterator[glint.Client]:
    mine = settings.model_copy(update={"batch_inputs": f"{boards},{many_boards}"})
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


def some_written(progress: JobProgress) -> bool:
    return progress.status == "running" and 0 < progress.done < MANY


def api_server() -> str:
    """Where this Ray takes submissions."""
    return str(ray_address_to_api_server_url(ray.get_runtime_context().gcs_address))


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
    assert len({outcome.uri for outcome in outcomes}) == len(outcomes) == NUM_IMAGES
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
    listed.unlink()  # the folder is other tests' too
    told = client.batch.job(second.id)
    assert told.attempt == 1
    assert told.error is not None
    assert "GLINT_BATCH_INPUTS" in told.error


def test_a_driver_that_dies_is_followed_by_another_which_completes_the_job(
    client: glint.Client, many_boards: Path
) -> None:
    job = client.batch.submit("boards", str(many_boards), options=SLOWLY)
    until(client, job.id, some_written)
    os.kill(driver_of(job.id), signal.SIGKILL)
    done = client.batch.wait(job.id)
    assert (done.status, done.done) == ("completed", MANY), client.batch.logs(job.id).text
    assert client.batch.job(job.id).attempt == 2
    assert "images have their outcomes already" in client.batch.logs(job.id).text
    assert len(list(client.batch.results(job.id))) == MANY


def test_two_supervisors_start_every_attempt_once(client: glint.Client, boards: Path, settings: Settings) -> None:
    def play() -> str:
        job = client.batch.submit("boards", str(boards))
        until(client, job.id, lambda progress: progress.status == "running")
        os.kill(driver_of(job.id), signal.SIGKILL)
        done = client.batch.wait(job.id)
        assert (done.status, done.done) == ("completed", NUM_IMAGES), client.batch.logs(job.id).text
        return job.id

    async def beside() -> str:
        mine = settings.model_copy(update={"batch_inputs": str(boards)})
        second = asyncio.create_task(open_supervisor(mine).run())
        try:
            return await asyncio.to_thread(play)
        finally:
            second.cancel()

    id = asyncio.run(beside())
    names = {one.submission_id for one in JobSubmissionClient(api_server()).list_jobs()}
    begun = [name.rpartition("-")[0] for name in names if name and id in name]
    assert sorted(begun) == [f"glint-{id}-1", f"glint-{id}-2"]
    assert client.batch.job(id).attempt == 2


def test_a_driver_may_be_submitted_by_hand(
    trained: Trained, settings: Settings, boards: Path, tmp_path: Path, client: glint.Client
) -> None:
    mine = settings.model_copy(
        update={"store": f"sqlite:///{tmp_path / 'results.db'}", "batch_inputs": str(boards)}  # no supervisor's
    )
    submission = Submission(
        id="by-hand",
        endpoint="boards",
        deployment="main",
        model=trained.model_uri,
        input=JobInput(uri=str(boards)),
        request_digest="0",
    )
    bridge, store = Bridge(), open_store(mine)
    bridge.run(Books(store).put_submission(submission))
    address = ray.get_runtime_context().gcs_address
    variables = json.dumps({"env_vars": driver_environment(mine, address)})
    submit = [
        str(Path(sys.executable).with_name("ray")),
        "job",
        "submit",
        "--address",
        api_server(),
        "--runtime-env-json",
        variables,
        "--",
    ]
    command = [*submit, sys.executable, str(REPOSITORY / "deployments" / "batch_job.py"), "--job", "by-hand"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    found = bridge.run(Books(store).submission("by-hand"))
    assert found is not None
    assert found[0].status == "completed", done.stdout
    assert len(bridge.collect(store.chunks("by-hand"))) == 3
    bridge.run(store.close())
    bridge.close()


def test_cancelling_ends_the_driver_and_a_retry_completes_the_job(client: glint.Client, many_boards: Path) -> None:
    job = client.batch.submit("boards", str(many_boards), options=SLOWLY)
    until(client, job.id, some_written)
    driver = os.pidfd_open(driver_of(job.id))
    assert client.batch.cancel(job.id).status == "cancelled"
    assert select.select([driver], [], [], 5)[0], "the driver still runs"
    os.close(driver)
    left = client.batch.progress(job.id)
    assert 0 < left.done < MANY
    assert len(list(client.batch.results(job.id))) == left.done
    client.batch.retry(job.id)
    done = client.batch.wait(job.id)
    assert (done.status, done.done) == ("completed", MANY), client.batch.logs(job.id).text
