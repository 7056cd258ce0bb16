"""glint policy: shown, changed, calibrated on a split, gone back, refused."""

import json
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from tests.colours import SPLITS, register
from typer.testing import CliRunner

from glint.cli.app import app
from glint.core.errors import GlintError
from glint.core.manifest import Manifest
from glint.core.policy import Policy
from glint.settings import Settings
from glint.vision.bundle import Bundle
from glint.wiring import open_model, open_predictor, open_registry, pinned

Ask = Callable[..., dict[str, Any]]
NUMBERS = count(1)
COSTS = ("--missed-defect", "100", "--false-alarm", "10", "--human-look", "1")


@pytest.fixture
def name(sighted: Bundle, settings: Settings) -> str:
    """A registered model of its own, its version 1 the champion."""
    registry, name = open_registry(settings), f"colours-{next(NUMBERS)}"
    registry.promote(name, register(registry, name, sighted), "champion")
    return name


@pytest.fixture
def ask(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Ask:
    monkeypatch.setenv("GLINT_HOME", str(settings.home))

    def asked(*arguments: str) -> dict[str, Any]:
        done = CliRunner().invoke(app, ["policy", *arguments, "--json"], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return asked


def test_without_options_it_shows_and_changes_nothing(ask: Ask, name: str, sighted: Bundle) -> None:
    shown = ask(name)
    assert (shown["model"], shown["number"], shown["active"]) == (f"models:/{name}/1", 0, True)
    assert Policy.model_validate(shown["policy"]) == sighted.policy
    assert shown["thresholds"] == {"blue": 0.4, "green": 0.4, "red": 0.4}
    assert shown["history"] == {}


def test_costs_make_a_policy_that_serves_from_now_on(ask: Ask, name: str, settings: Settings, sighted: Bundle) -> None:
    before = open_model(f"models:/{name}@champion", settings)
    shown = ask(name, *COSTS, "--missed", "red=1000")
    assert (shown["number"], shown["active"]) == (1, True)
    assert shown["thresholds"] == pytest.approx({"blue": 0.999, "green": 0.999, "red": 0.9})
    after = open_model(f"models:/{name}@champion", settings)
    assert after.ref.policy == shown["digest"] != before.ref.policy
    assert after.ref.bundle == before.ref.bundle
    predictor = open_predictor(after.uri, settings)
    assert predictor.interpret([0.99, 0.01, 0.0]).decision == "review"
    assert predictor.model.policy == shown["digest"]
    (record,) = shown["history"].values()
    assert record["change"] == "--missed-defect 100 --false-alarm 10 --human-look 1 --missed red=1000"
    assert record["by"]
    assert pinned(before, settings)().model.policy == before.ref.policy, "who found it earlier keeps what was found"


def test_single_options_change_what_they_name_and_keep_the_rest(ask: Ask, name: str) -> None:
    ask(name, *COSTS, "--missed", "red=1000")
    changed = ask(name, "--human-look", "5", "--accept-class", "blue", "--missed", "green=200")
    assert changed["policy"]["costs"] == {
        "missed_defect": 100,
        "false_alarm": 10,
        "human_look": 5,
        "missed": {"red": 1000, "green": 200},
    }
    assert (changed["policy"]["accept_classes"], changed["number"]) == (["blue"], 2)
    plain = ask(name, "--review-below", "0.7")
    assert (plain["policy"]["costs"], plain["thresholds"]["blue"], plain["number"]) == (None, 0.7, 3)


def test_a_split_calibrates_the_confidence(
    ask: Ask, name: str, colours: Manifest, ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Ray runs, and starting it again would divert the test runner's own stdout and stderr.
    monkeypatch.setattr("glint.cli.starting.start", lambda settings, told: None)
    shown = ask(name, "--manifest", str(colours.path))
    assert (shown["number"], shown["active"], shown["tried"]["num_images"]) == (1, True, 3 * SPLITS["val"])
    assert shown["policy"]["temperature"] != 1
    (record,) = shown["history"].values()
    assert record["change"] == f"--manifest {colours.path} --split val"


def test_the_same_policy_again_is_no_new_version(ask: Ask, name: str) -> None:
    assert ask(name, *COSTS)["number"] == ask(name, *COSTS)["number"] == 1


def test_show_says_what_it_would_be_and_leaves_it_at_that(ask: Ask, name: str) -> None:
    shown = ask(name, *COSTS, "--show")
    assert (shown["number"], shown["active"], shown["thresholds"]["blue"]) == (None, False, 0.99)
    assert ask(name)["number"] == 0


def test_one_goes_back_to_a_policy_by_its_number(ask: Ask, name: str, sighted: Bundle) -> None:
    ask(name, *COSTS)
    ask(name, "--human-look", "2")
    assert ask(f"{name}/1", "--version", "1", "--show")["active"] is False
    back = ask(f"{name}/1", "--version", "1")
    assert (back["active"], back["policy"]["costs"]["human_look"], ask(name)["number"]) == (True, 1, 1)
    own = ask(f"{name}@champion", "--version", "0")
    assert (Policy.model_validate(own["policy"]), own["active"]) == (sighted.policy, True)
    assert list(own["history"]) == ["1", "2"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--human-look", "1"), "no costs yet: state --missed-defect and --false-alarm too"),
        ((*COSTS, "--review-below", "0.5"), "--review-below 0.5 and costs"),
        ((*COSTS, "--missed", "red"), "--missed 'red' must be CLASS=COST"),
        ((*COSTS, "--missed", "pink=3"), r"policy.costs.missed names \['pink'\]"),
        ((*COSTS, "--missed", "blue=3"), r"policy.costs.missed names \['blue'\]"),
        (("--accept-class", "pink"), r"policy.accept_classes names \['pink'\]"),
        (("--missed-defect", "-1", "--false-alarm", "1", "--human-look", "1"), "policy.costs.missed_defect: .* got -1"),
        (("--review-below", "1.5"), "policy.review_below: .* got 1.5"),
        (("--version", "7"), "--version 7 is no policy of models:/.*; there are: 0"),
        (("--version", "0", "--review-below", "0.5"), "--version 0 takes a policy as it was"),
    ],
)
def test_a_mistake_is_told_in_one_line_and_changes_nothing(
    ask: Ask, name: str, options: tuple[str, ...], complaint: str
) -> None:
    with pytest.raises(GlintError, match=complaint):
        ask(name, *options)
    assert ask(name)["number"] == 0


def test_a_person_reads_a_table(ask: Ask, name: str) -> None:
    ask(name, *COSTS)
    shown = CliRunner().invoke(app, ["policy", name], catch_exceptions=False).stdout
    assert "costs: missed defect 100, false alarm 10, human look 1; temperature 1" in shown
    assert [line.split() for line in shown.splitlines() if line.startswith("red")] == [["red", "reject", "0.9000"]]
