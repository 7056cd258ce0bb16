import asyncio
import io
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from glint.core.errors import ImageError
from glint.core.outcome import ModelRef
from glint.serving.admission import Admission
from glint.serving.classifier import Classifier
from glint.serving.contest import FEWEST
from glint.serving.live import Memory
from glint.serving.metrics import Metrics
from glint.serving.models import Models
from glint.serving.problems import ProblemError
from glint.serving.sources import Challenge, Found, Source
from glint.vision.bundle import Bundle
from glint.vision.predictor import Predictor

NUM_IMAGES = 100


class Failing(Predictor):
    """Loads, passes its self-test and warms up, and then fails on each image."""

    def interpret(self, *_: Any) -> Any:
        raise ZeroDivisionError("out of memory, say")


def pictures(number: int = NUM_IMAGES) -> list[bytes]:
    """Red pictures, no two alike."""
    random = np.random.default_rng(1)
    made = []
    for _ in range(number):
        pixels = random.integers(0, 120, size=(32, 32, 3), dtype=np.uint8) + np.array([60, 0, 0], dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        made.append(file.getvalue())
    return made


class Slow(Predictor):
    """Takes several times as long."""

    def interpret(self, *arguments: Any) -> Any:
        time.sleep(0.05)
        return super().interpret(*arguments)


class Hanging(Predictor):
    """Its engine does not come back before it is told to."""

    over = threading.Event()

    def interpret(self, *arguments: Any) -> Any:
        self.over.wait(10)
        return super().interpret(*arguments)


def contest(
    sighted: Bundle,
    other: Bundle,
    kind: type[Predictor] = Predictor,
    champion_kind: type[Predictor] = Predictor,
    num_threads: int = 1,
    memory: Memory | None = None,
    **terms: Any,
) -> Models:
    """Version 1 tells red as version 2, the challenger, may not."""
    challenger = Source("colours", lambda: Found("2", lambda: kind(other, "colours", "2")), "challenger")
    challenge = Challenge(challenger, **{"max_slowdown": 1e6, **terms})
    champion = Source(
        "colours", lambda: Found("1", lambda: champion_kind(sighted, "colours", "1")), "champion", challenge
    )
    return Models([champion], Classifier(num_threads, max_wait_s=60), Metrics(), memory)


def ask(models: Models, images: list[bytes], name: str | None = None, key: bytes | None = None) -> list[ModelRef]:
    """The model that answers each image, which come one after the other, each once all is done about the one before."""

    async def asking() -> list[ModelRef]:
        answered = []
        for image in images:
            answered.append((await models.classify(name, image, 1, key))[1])
            while background := [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]:
                await asyncio.wait(background)
        return answered

    return asyncio.run(asking())


def versions(answered: list[ModelRef]) -> list[str | None]:
    return [model.version for model in answered]


def counted(models: Models, sample: str) -> float:
    """A sample's value, 0 where there is none."""
    lines = [line for line in models.metrics().decode().splitlines() if line.startswith(f"{sample} ")]
    return float(lines[0].rpartition(" ")[2]) if lines else 0.0


def test_a_canary_answers_its_share_and_an_image_sticks_to_its_side(sighted: Bundle, blind: Bundle) -> None:
    models = contest(sighted, blind, canary=0.3)
    first, second = (versions(ask(models, pictures())) for _ in range(2))
    assert first == second == versions(ask(contest(sighted, blind, canary=0.3), pictures())), "in any replica"
    assert first.count("2") == pytest.approx(0.3 * NUM_IMAGES, abs=15)


def test_a_key_of_the_callers_sticks_to_one_side_whatever_the_image(sighted: Bundle, blind: Bundle) -> None:
    models = contest(sighted, blind, canary=0.5)
    sides = [set(versions(ask(models, pictures(5), key=b"line-%d" % number))) for number in range(20)]
    assert {len(side) for side in sides} == {1}
    assert set.union(*sides) == {"1", "2"}


def test_a_shadow_answers_nobody_and_is_compared(sighted: Bundle, blind: Bundle) -> None:
    models = contest(sighted, blind, shadow=1)
    assert set(versions(ask(models, pictures()))) == {"1"}
    same, other = (
        counted(models, f'glint_contest_compared_total{{model="colours",result="{result}"}}')
        for result in ("same", "other_label")
    )
    assert (same, other) == (0, NUM_IMAGES), "the challenger never says red"
    for role in ("champion", "challenger"):
        assert counted(models, f'glint_contest_seconds_count{{model="colours",role="{role}"}}') == NUM_IMAGES


def test_equal_models_agree(sighted: Bundle) -> None:
    models = contest(sighted, sighted, canary=0.5, shadow=1)
    ask(models, pictures(20))
    assert counted(models, 'glint_contest_compared_total{model="colours",result="same"}') == 20


def test_a_failing_challenger_fails_no_request_and_is_sent_back(
    sighted: Bundle, blind: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    models = contest(sighted, blind, Failing, canary=1, max_errors=0.02)
    assert set(versions(ask(models, pictures()))) == {"1"}
    assert counted(models, 'glint_contest_errors_total{model="colours",role="challenger"}') == 5, "4 of 200 are allowed"
    assert counted(models, 'glint_contest_trying{model="colours"}') == 0
    assert counted(models, 'glint_contest_returns_total{model="colours"}') == 1
    assert "colours: back to the champion alone, until the challenger is not 2: 5 errors" in caplog.text
    with pytest.raises(ZeroDivisionError):
        ask(models, pictures(1), "colours@challenger")


@pytest.mark.parametrize(("max_slowdown", "answering"), [(1e-6, {"1"}), (1e6, {"1", "2"})])
def test_a_challenger_that_takes_longer_than_allowed_is_sent_back(
    sighted: Bundle, caplog: pytest.LogCaptureFixture, max_slowdown: float, answering: set[str]
) -> None:
    models = contest(sighted, sighted, canary=0.5, shadow=1, max_slowdown=max_slowdown)
    answered = versions(ask(models, pictures()))
    assert set(answered[:FEWEST]) == {"1", "2"}
    assert set(answered[FEWEST:]) == answering
    assert ("times the champion's" in caplog.text) == (answering == {"1"})


@pytest.mark.parametrize(
    ("challenger", "champion", "returns"), [(Slow, Predictor, 1), (Predictor, Slow, 0)], ids=["slower", "faster"]
)
def test_the_slower_side_is_the_one_that_is_measured(
    sighted: Bundle, challenger: type[Predictor], champion: type[Predictor], returns: int
) -> None:
    models = contest(sighted, sighted, challenger, champion, canary=0.5, shadow=1, max_slowdown=2)
    ask(models, pictures(FEWEST + 5))
    assert counted(models, 'glint_contest_returns_total{model="colours"}') == returns


def test_a_champion_that_answers_nobody_is_still_timed(sighted: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glint.serving.contest.FEWEST", 3)
    models = contest(sighted, sighted, canary=1, max_slowdown=1e-6)
    answered = versions(ask(models, pictures(200)))
    compared = counted(models, 'glint_contest_compared_total{model="colours",result="same"}')
    assert compared == 3
    assert answered[0] == "2"
    assert answered[-1] == "1", "back to the champion, which the three were enough for"


def test_a_challenger_that_answers_all_is_judged_where_no_thread_is_ever_idle(
    sighted: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glint.serving.contest.FEWEST", 3)
    monkeypatch.setattr(Admission, "idle", False)
    models = contest(sighted, sighted, canary=1, max_slowdown=1e-6)
    answered = versions(ask(models, pictures(200)))
    assert (answered[0], answered[-1]) == ("2", "1")
    assert counted(models, 'glint_contest_compared_total{model="colours",result="same"}') == 3, (
        "and no more than it takes"
    )


def test_a_challenger_that_hangs_is_tried_neither_here_nor_by_replicas_to_come(
    sighted: Bundle, blind: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    memory: dict[str, Found] = {}
    terms = {"num_threads": 2, "memory": memory, "canary": 1.0}
    models, beside = (contest(sighted, sighted, Hanging, **terms) for _ in range(2))
    Hanging.over.clear()

    async def hang() -> None:
        asked = [asyncio.create_task(models.classify(None, image, 1)) for image in pictures(3)]
        while not models._classifier.inferring_s(models._contests["colours"].challenger.current.predictor):
            await asyncio.sleep(0.01)
        models.check()
        assert counted(models, 'glint_contest_trying{model="colours"}') == 1, "not for long yet"
        monkeypatch.setattr("glint.serving.contest.HANGS_AFTER_S", 0)
        for _ in range(2):
            models.check()
        for task in asked:
            task.cancel()  # its caller has left
        Hanging.over.set()

    asyncio.run(hang())
    assert set(versions(ask(models, pictures(3)))) == {"1"}
    assert counted(models, 'glint_contest_returns_total{model="colours"}') == 1
    assert "until the challenger is not 2: an image has taken more than 0 s" in caplog.text
    assert set(versions(ask(contest(sighted, sighted, **terms), pictures(3)))) == {"1"}, "of a replica to come"
    assert "the challenger is not tried: it hung on an image" in caplog.text
    beside.follow()
    assert set(versions(ask(beside, pictures(3)))) == {"1"}
    assert set(versions(ask(contest(sighted, blind, **terms), pictures(3)))) == {"2"}, "another network is tried"


def test_an_image_that_nobody_can_decode_is_no_error_of_the_challenger(sighted: Bundle) -> None:
    models = contest(sighted, sighted, canary=1)
    with pytest.raises(ImageError):
        ask(models, [b"junk"])
    assert counted(models, 'glint_contest_errors_total{model="colours",role="challenger"}') == 0


@pytest.mark.parametrize(
    ("name", "version"),
    [("colours@champion", "1"), ("colours/1", "1"), ("colours@challenger", "2"), ("colours/2", "2")],
)
def test_a_request_may_name_its_side_by_alias_or_version(
    sighted: Bundle, blind: Bundle, name: str, version: str
) -> None:
    models = contest(sighted, blind, canary=0.5, shadow=1)
    assert name in models.names
    assert set(versions(ask(models, pictures(10), name))) == {version}


@pytest.mark.parametrize("name", ["colours@next", "colours/3", "other@champion", "colours@", "/1"])
def test_what_is_not_served_is_refused_with_the_choices(sighted: Bundle, blind: Bundle, name: str) -> None:
    models = contest(sighted, blind)
    names = "colours, colours@champion, colours/1, colours@challenger, colours/2"
    with pytest.raises(ProblemError, match=f"there are: {names}"):
        models.describe(name)


def test_explanations_are_of_the_model_that_answered(
    sighted: Bundle, blind: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = contest(sighted, blind, canary=1)
    asked: list[Callable[..., Any]] = []

    async def remember(work: Callable[..., Any], *__: Any, **___: Any) -> None:
        asked.append(work)

    monkeypatch.setattr(models._classifier, "run", remember)
    (answered,) = ask(models, pictures(1))
    asyncio.run(models.explain(None, answered, pictures(1)[0], "red"))
    assert asked == [models._contests["colours"].challenger.current.explanations.explain]
