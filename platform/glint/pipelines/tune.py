"""Tuning: Ray Tune trains a recipe with many values of its fields, and stops the poor ones early.

glint tune --recipe recipe.yaml --space configs/spaces/boards.yaml --manifest manifest.parquet --trials 20
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.logger import JsonLoggerCallback
from ray.tune.schedulers import ASHAScheduler

from glint.core.errors import GlintError
from glint.core.progress import Progress, Silent
from glint.core.recipe import Recipe, with_fields
from glint.core.space import Space, Values
from glint.core.threads import in_thread
from glint.core.whole import write_whole
from glint.pipelines.board import open_board
from glint.pipelines.fitting import BEST_BY, Room, check_workers, fit, open_room
from glint.pipelines.loading import CACHE_SHARE
from glint.pipelines.loop import EPOCHS_DONE
from glint.pipelines.run_checks import check_optimizer, check_run
from glint.pipelines.run_state import alone_in, last_epoch
from glint.pipelines.train import make_plan
from glint.pipelines.training_run import TrainingRun
from glint.pipelines.trial_scores import note_score, read_scores
from glint.pipelines.trial_telling import Teller
from glint.vision.backbone import check_backbone

REDUCTION = 3
"""ASHA: of so many trials that come to an epoch, one goes on (Li et al., 2020)."""
TUNED = "tuned.json"
"""What a finished tuning came to, in its directory."""
AT_A_TIME = "at_a_time"
"""How many trials it began with at a time, in its directory."""
_TRIAL_ID = re.compile(r"_([0-9a-f]+_\d{5})_")
"""In the name of a trial's directory, as Ray Tune forms it."""
TRIAL_CPUS = 0.1
"""Logical CPUs of a trial, beside those of its workers."""
STATE_EVERY_S = 2
"""How often Ray Tune writes down the state of the trials: what an interrupted tuning knows of when it goes on."""


class Trial(BaseModel):
    """One trial: the values of its fields, and the best score of its epochs; None where it failed, if after some."""

    model_config = ConfigDict(frozen=True)

    trial: str
    score: float | None
    epochs: int
    seconds: float
    values: dict[str, Any]
    error: str | None = None
    scores: dict[int, float] = {}
    """By epoch, from 1 on; 0 is the frozen phase."""


class Tuned(BaseModel):
    """What tuning came to: trials, the best first, and the recipe of the best."""

    model_config = ConfigDict(frozen=True)

    run: str
    metric: str = BEST_BY
    trials: tuple[Trial, ...]
    best: Recipe

    @property
    def finished(self) -> int:
        """Trials that have a score."""
        return sum(trial.score is not None for trial in self.trials)


@dataclass(frozen=True)
class Tuning:
    """A training run whose recipe is varied: the same run, space and number of trials continue the same tuning."""

    run: TrainingRun
    space: Space
    num_trials: int
    concurrent: int = 1

    @property
    def at_a_time(self) -> int:
        """How many trials are trained beside each other."""
        return min(self.concurrent, self.num_trials)

    @property
    def id(self) -> str:
        """From the training run's id, the space and the number of trials."""
        identity = hashlib.sha256(f"{self.run.id}\0{self.space.digest}\0{self.num_trials}".encode()).hexdigest()[:12]
        return f"{self.run.recipe.name}-{identity}"

    @property
    def directory(self) -> Path:
        """Where all that belongs to it is kept."""
        return self.run.home / "tune" / self.id

    @property
    def trials(self) -> Path:
        """Where each trial has a folder."""
        return self.directory / "trials"

    @property
    def state(self) -> Path:
        """Where Ray Tune keeps the state of the trials."""
        return self.directory / "state"


def check_tuning(tuning: Tuning) -> None:
    """Raise GlintError for what can be known to be wrong before Ray starts."""
    check_run(tuning.run)
    tuning.space.check(tuning.run.recipe)
    try_optimizer = partial(check_optimizer, use_gpu=tuning.run.workers.use_gpu)
    for key, check in (("backbone", check_backbone), ("optimisation.optimizer", try_optimizer)):
        for name in tuning.space.choices(key):
            check(name)


def check_pace(tuning: Tuning) -> None:
    """Raise GlintError where it began with other trials at a time: Ray Tune goes on so, whatever it is told then."""
    noted = tuning.directory / AT_A_TIME
    if not (noted.exists() and is_begun(tuning.state)):
        return
    before = int(noted.read_text(encoding="utf-8"))
    if before != tuning.at_a_time:
        raise GlintError(
            f"--concurrent {tuning.concurrent}: this tuning has begun with {before} trials at a time, and can only go "
            f"on so: name --concurrent {before}, or --fresh to start over"
        )


def run_tuning(tuning: Tuning, progress: Progress, fresh: bool = False) -> Tuned:
    """Tune, or continue, or say what a finished tuning came to; raises GlintError when no trial could be trained."""
    if not fresh and (before := finished(tuning, progress)):
        return before
    check_tuning(tuning)
    check_workers(tuning.run.workers, tuning.run.recipe, tuning.at_a_time, TRIAL_CPUS)
    with alone_in(tuning.directory):
        if fresh:
            shutil.rmtree(tuning.directory, ignore_errors=True)
        check_pace(tuning)
        tuning.directory.mkdir(parents=True, exist_ok=True)
        write_whole(tuning.directory / AT_A_TIME, f"{tuning.at_a_time}\n")
        progress.begin("tuning", tuning.num_trials, "trials")
        teller = Teller(progress, tuning.trials, tuning.run.recipe.optimisation.epochs)
        grid = in_thread(_tuner(tuning, teller).fit)
        progress.end()
        tuned = _tuned(tuning, grid)
        write_whole(tuning.directory / TUNED, tuned.model_dump_json(indent=2) + "\n")
    return tuned


def is_begun(state: Path) -> bool:
    """Whether there is a state of trials to go on from."""
    return bool(tune.Tuner.can_restore(str(state))) and any(state.glob("experiment_state*.json"))


def finished(tuning: Tuning, progress: Progress) -> Tuned | None:
    """What a finished tuning came to, telling so; None for any other. Needs no Ray."""
    if not (tuning.directory / TUNED).exists():
        return None
    progress.say(f"tuning {tuning.id} is finished already; --fresh starts over")
    return Tuned.model_validate_json((tuning.directory / TUNED).read_bytes())


def _tuner(tuning: Tuning, teller: Teller) -> tune.Tuner:
    os.environ |= {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "TUNE_GLOBAL_CHECKPOINT_S": str(STATE_EVERY_S)}
    # The recipe is made exact here, once: an alias may move while trials begin.
    room = open_room(tuning.at_a_time, TRIAL_CPUS)
    trial = tune.with_parameters(_train_trial, tuning=tuning, recipe=tuning.run.exact_recipe, room=room)
    trainable = tune.with_resources(trial, {"CPU": TRIAL_CPUS})
    callbacks = [teller, JsonLoggerCallback()]
    if is_begun(tuning.state):
        tuner = tune.Tuner.restore(str(tuning.state), trainable=trainable, resume_unfinished=True)
        assert tuner._local_tuner
        tuner._local_tuner.get_run_config().callbacks = callbacks  # the one that was pickled tells nobody
        return tuner
    epochs = _most_epochs(tuning)
    return tune.Tuner(
        trainable,
        param_space={key: _domain(values) for key, values in tuning.space.fields.items()},
        tune_config=tune.TuneConfig(
            metric=BEST_BY,
            mode="max",
            num_samples=tuning.num_trials,
            scheduler=ASHAScheduler(
                time_attr=EPOCHS_DONE,
                max_t=epochs,
                grace_period=max(1, epochs // REDUCTION**2),
                reduction_factor=REDUCTION,
            ),
            search_alg=tune.search.BasicVariantGenerator(
                max_concurrent=tuning.at_a_time, random_state=tuning.run.recipe.seed
            ),
        ),
        run_config=tune.RunConfig(
            name=tuning.state.name, storage_path=str(tuning.directory), callbacks=callbacks, verbose=0
        ),
    )


def _train_trial(config: dict[str, Any], tuning: Tuning, recipe: Recipe, room: Room) -> None:
    """One trial of the recipe, as Ray Tune runs it: it continues from its own last checkpoint where there is one.

    Trials at a time share the room for decoded images.
    """
    trial = replace(tuning.run, recipe=with_fields(recipe, config))
    check_run(trial)
    check_workers(trial.workers, trial.recipe, tuning.at_a_time, TRIAL_CPUS)
    board = open_board()
    plan = replace(make_plan(trial, Silent(), CACHE_SHARE / tuning.at_a_time), board=board)
    place = tuning.trials / str(tune.get_context().get_trial_id())
    place.mkdir(parents=True, exist_ok=True)
    resumed = last_epoch(place) is not None
    result = fit(place, plan, trial.workers, room, Silent(), [TuneReportCallback()])
    if resumed and result.metrics:
        # The interruption may have come before the report of its last epoch. Reporting it here could block: Ray Tune
        # has room for one report, and makes one of its own when this function returns.
        note_score(place, int(result.metrics["epoch"]), float(result.metrics[BEST_BY]))


def _most_epochs(tuning: Tuning) -> int:
    values = tuning.space.fields.get("optimisation.epochs")
    return max(map(int, values.ends)) if values else tuning.run.recipe.optimisation.epochs


def _domain(values: Values) -> Any:
    if values.choice:
        return tune.choice(list(values.choice))
    if values.integers:
        return tune.randint(values.integers[0], values.integers[1] + 1)
    return tune.uniform(*values.uniform) if values.uniform else tune.loguniform(*(values.loguniform or ()))


def _tuned(tuning: Tuning, grid: tune.ResultGrid) -> Tuned:
    trials = sorted(
        [_trial(tuning, grid[i]) for i in range(len(grid))],
        key=lambda trial: -1.0 if trial.score is None else trial.score,
        reverse=True,
    )
    if trials[0].score is None:
        raise GlintError(f"every trial failed; the first with: {trials[0].error}")
    return Tuned(run=tuning.id, trials=tuple(trials), best=with_fields(tuning.run.exact_recipe, trials[0].values))


def _trial(tuning: Tuning, result: Any) -> Trial:
    found = _TRIAL_ID.search(Path(result.path).name)
    name = found[1] if found else ""
    scores = read_scores(tuning.trials / name)
    return Trial(
        trial=name,
        score=None if result.error else max(scores.values(), default=None),
        epochs=sum(epoch >= 0 for epoch in scores),
        seconds=round(float((result.metrics or {}).get("time_total_s", 0)), 1),
        values=dict(result.config or {}),
        error=_reason(result.error) if result.error else None,
        scores={epoch + 1: score for epoch, score in scores.items()},
    )


def _reason(error: BaseException) -> str:
    lines = [line for line in str(getattr(error, "cause", None) or error).splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else type(error).__name__
