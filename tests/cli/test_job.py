"""The driver of a job of a batch endpoint, apart from what it scores."""

import signal
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.pipelines.progress import Told
from tests.stores.store_documents import job as stored_job

from glint.cli import job as driver
from glint.core.books import Books
from glint.core.errors import GlintError
from glint.core.policy import Policy
from glint.core.stores import Bridge
from glint.core.submission import LEASE, JobInput, Submission
from glint.pipelines.training_run import Trained
from glint.settings import Settings
from glint.wiring import open_model, open_registry, open_store


@pytest.fixture
def own(settings: Settings, boards: Path, tmp_path: Path) -> Settings:
    """Settings with a store of its own."""
    return settings.model_copy(update={"store": f"sqlite:///{tmp_path / 'results.db'}", "batch_inputs": str(boards)})


def submission(model: str, boards: Path) -> Submission:
    return Submission(
        id="a", endpoint="boards", deployment="main", model=model, input=JobInput(uri=str(boards)), request_digest="0"
    )


def kept(own: Settings, asked: Submission) -> None:
    """Have the books know of it."""
    bridge, store = Bridge(), open_store(own)
    bridge.run(Books(store).put_submission(asked))
    bridge.run(store.close())
    bridge.close()


def test_a_job_goes_on_with_the_policy_that_it_began_with(trained: Trained, own: Settings, boards: Path) -> None:
    begun, registry = open_model(trained.model_uri, own), open_registry(own)
    assert begun.name is not None
    assert begun.version is not None
    number = registry.policy_number(begun.name, begun.version)
    bridge, store = Bridge(), open_store(own)
    bridge.run(store.put_job(stored_job("a", model=begun.ref, model_uri=begun.uri)))
    bridge.run(store.close())
    bridge.close()
    try:
        registry.put_policy(begun.name, begun.version, Policy(review_below=0.987).model_dump_json())
        assert open_model(trained.model_uri, own).ref.policy != begun.ref.policy
        run = driver._open_run(submission(trained.model_uri, boards), own, Told())
    finally:
        registry.use_policy(begun.name, begun.version, number)
    assert run.model == begun.ref
    assert run.open_predictor().model.policy == begun.ref.policy


@pytest.fixture
def interrupted() -> Iterator[list[int]]:
    """Signals to end that came to this process."""
    came = list[int]()
    ends = (signal.SIGTERM, signal.SIGALRM)
    before = [signal.signal(end, lambda number, frame: came.append(number)) for end in ends]
    yield came
    for end, handler in zip(ends, before, strict=True):
        signal.signal(end, handler)


@pytest.mark.parametrize(
    ("change", "ends"),
    [
        (lambda one: one, False),
        (lambda one: one.end("cancelled"), True),
        (lambda one: one.model_copy(update={"attempt": 2}), True),
        (lambda one: one.held("127.0.0.1:2"), True),
    ],
)
def test_a_driver_ends_when_the_books_say_that_it_is_over_and_by_force_if_it_does_not(
    own: Settings,
    boards: Path,
    monkeypatch: pytest.MonkeyPatch,
    interrupted: list[int],
    change: Callable[[Submission], Submission],
    ends: bool,
) -> None:
    monkeypatch.setattr(driver, "WATCH_S", 0.05)
    monkeypatch.setattr(driver, "FORCED_AFTER_S", 0.05)
    own = own.model_copy(update={"ray_address": "127.0.0.1:1"})
    begun = submission("models:/boards/1", boards).held("127.0.0.1:1")
    kept(own, begun)
    with driver._ended_by_the_books(begun, own):
        kept(own, change(begun))
        since = time.monotonic()
        while len(interrupted) < 2 and time.monotonic() - since < (10 if ends else 0.5):
            time.sleep(0.01)
    assert interrupted == ([signal.SIGTERM, signal.SIGALRM] if ends else [])


def test_a_mistake_is_told_by_the_fields_of_the_request(
    own: Settings, boards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mistaken(*_: object) -> None:
        raise GlintError("--input /nowhere is no folder")

    monkeypatch.setattr(driver, "_score", mistaken)
    kept(own, submission("models:/boards/1", boards))
    driver.drive("a", own)
    found = in_the_books(own)
    assert (found.status, found.error) == ("failed", "input /nowhere is no folder")


def test_a_job_with_a_driver_on_another_ray_is_left_alone_until_it_is_silent(
    own: Settings, boards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = own.model_copy(update={"ray_address": "127.0.0.1:1"})
    held = submission("models:/boards/1", boards).held("127.0.0.1:2")
    kept(own, held)
    with pytest.raises(GlintError, match=r"is driven on another Ray, that at 127\.0\.0\.1:2"):
        driver.drive("a", mine)
    assert in_the_books(own) == held
    kept(own, held.model_copy(update={"seen_at": datetime.now(UTC) - LEASE}))

    def interrupted(*_: object) -> None:
        now = in_the_books(own)
        assert (now.status, now.cluster) == ("running", "127.0.0.1:1")
        raise KeyboardInterrupt

    monkeypatch.setattr(driver, "_score", interrupted)
    driver.drive("a", mine)
    assert in_the_books(own).cluster is None  # whichever server looks first may go on


def in_the_books(own: Settings) -> Submission:
    bridge, store = Bridge(), open_store(own)
    found = bridge.run(Books(store).submission("a"))
    bridge.run(store.close())
    bridge.close()
    assert found is not None
    return found[0]
