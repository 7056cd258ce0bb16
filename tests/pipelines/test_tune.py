"""Tuning on the boards of the fast tests."""

import csv
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.pipelines.progress import Told

from glint.core.errors import GlintError
from glint.core.recipe import read_recipe
from glint.core.space import Space, Values
from glint.pipelines.training_run import TrainingRun
from glint.pipelines.trial_scores import note_score, read_scores
from glint.pipelines.trials import write_trials
from glint.pipelines.tune import Trial, Tuned, Tuning, _trial, check_pace, run_tuning

SPACE = Space(
    fields={
        "optimisation.lr": Values(choice=(1e-9, 3e-3)),
        "augmentation.shift": Values(uniform=(0, 0.2)),
    }
)


@pytest.mark.slow
def test_tuning_ranks_its_trials_and_a_finished_one_says_so(training: TrainingRun, tmp_path: Path) -> None:
    tuning, told = Tuning(training, SPACE, num_trials=3), Told()
    tuned = run_tuning(tuning, told)
    assert len(tuned.trials) == tuned.finished == 3
    assert len({trial.trial for trial in tuned.trials}) == 3
    scores = [trial.score or 0 for trial in tuned.trials]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= trial.values["augmentation.shift"] <= 0.2 for trial in tuned.trials)
    assert tuned.best.augmentation.shift == tuned.trials[0].values["augmentation.shift"]
    assert sum(line.startswith("trial ") for line in told.lines) == 3
    again = Told()
    assert run_tuning(tuning, again) == tuned
    assert again.lines == [f"tuning {tuning.id} is finished already; --fresh starts over"]
    write_trials(tmp_path / "tuned", tuned, SPACE)
    assert read_recipe(tmp_path / "tuned" / "best.yaml") == tuned.best


@pytest.mark.slow
def test_a_trial_that_cannot_be_trained_does_not_stop_the_others(training: TrainingRun) -> None:
    space = Space(fields={"weights": Values(choice=("none", "gone.safetensors"))})
    tuned = run_tuning(Tuning(replace(training, name="half"), space, num_trials=4), Told())
    failed = [trial for trial in tuned.trials if trial.score is None]
    assert 0 < len(failed) < 4
    assert all("gone.safetensors" in (trial.error or "") for trial in failed)
    assert tuned.best.weights == "none"


def test_a_tuning_goes_on_with_as_many_trials_at_a_time_as_it_began_with(
    training: TrainingRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuning = Tuning(replace(training, name="pace"), SPACE, num_trials=3)
    tuning.directory.mkdir(parents=True)
    (tuning.directory / "at_a_time").write_text("3\n")
    check_pace(tuning)  # interrupted before there was anything to go on from
    monkeypatch.setattr("glint.pipelines.tune.is_begun", lambda _: True)
    check_pace(replace(tuning, concurrent=3))
    with pytest.raises(GlintError, match=r"^--concurrent 1: .* 3 trials at a time, .* name --concurrent 3, or"):
        run_tuning(tuning, Told())
    assert not tuning.state.exists()


@pytest.mark.parametrize("key", ["backbone", "optimisation.optimizer"])
def test_a_space_with_what_timm_does_not_know_is_refused_at_once(training: TrainingRun, key: str) -> None:
    known = {"backbone": "test_resnet", "optimisation.optimizer": "adamw"}[key]
    space = Space(fields={key: Values(choice=(known, "no_such_thing"))})
    with pytest.raises(GlintError, match=f"recipe.{key} 'no_such_thing' is not one of timm's"):
        run_tuning(Tuning(training, space, num_trials=4), Told())


def test_a_trial_that_fails_after_some_epochs_has_no_score(training: TrainingRun, tmp_path: Path) -> None:
    tuning = Tuning(replace(training, home=tmp_path), SPACE, num_trials=1)
    for epoch, score in ((-1, 0.2), (0, 0.9)):
        note_score(tuning.trials / "abc_00000", epoch, score)
    ended = SimpleNamespace(path="x_abc_00000_y", metrics={}, config={}, error=None)
    assert _trial(tuning, ended).score == 0.9
    failed = _trial(tuning, SimpleNamespace(**vars(ended) | {"error": RuntimeError("diverged")}))
    assert (failed.score, failed.epochs, failed.scores, failed.error) == (None, 1, {0: 0.2, 1: 0.9}, "diverged")


def test_scores_of_a_trial_outlast_a_restart_and_count_once(tmp_path: Path) -> None:
    assert read_scores(tmp_path / "a") == {}
    for epoch, score in ((-1, 0.1), (0, 0.2), (1, 0.4), (1, 0.4), (2, 0.3)):
        note_score(tmp_path / "a", epoch, score)
    assert read_scores(tmp_path / "a") == {-1: 0.1, 0: 0.2, 1: 0.4, 2: 0.3}


def test_a_space_that_the_recipe_refuses_is_the_users_mistake(training: TrainingRun) -> None:
    space = Space(fields={"optimisation.lr": Values(choice=(-1,))})
    with pytest.raises(GlintError, match=r"recipe\.optimisation\.lr"):
        run_tuning(Tuning(training, space, num_trials=1), Told())


def test_trials_are_written_as_a_table_a_picture_and_the_best_recipe(training: TrainingRun, tmp_path: Path) -> None:
    space = Space(fields={"seed": Values(integers=(1, 3)), "backbone": Values(choice=("x", "y", "z"))})
    trials = (
        Trial(trial="a", score=0.9, epochs=2, seconds=3, values={"seed": 1, "backbone": "x"}, scores={1: 0.5, 2: 0.9}),
        Trial(trial="b", score=0.4, epochs=1, seconds=2, values={"seed": 2, "backbone": "y"}, scores={1: 0.4}),
        Trial(trial="c", score=None, epochs=0, seconds=1, values={"seed": 3, "backbone": "z"}, error="no such"),
    )
    write_trials(tmp_path / "out", Tuned(run="boards-1", trials=trials, best=training.recipe), space)
    rows = list(csv.DictReader((tmp_path / "out" / "trials.csv").read_text().splitlines()))
    assert [row["seed"] for row in rows] == ["1", "2", "3"]
    assert rows[2]["error"] == "no such"
    assert (tmp_path / "out" / "trials.svg").read_text().count("<svg") == 1
    assert "0.9000" in (tmp_path / "out" / "best.yaml").read_text().splitlines()[0]
    with pytest.raises(GlintError, match=r"--out .* cannot be written to"):
        write_trials(tmp_path / "out" / "trials.csv", Tuned(run="r", trials=trials, best=training.recipe), space)
