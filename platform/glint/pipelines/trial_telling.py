"""What is told of the trials of a tuning while they are trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray import tune

from glint.core.progress import Progress, Silent
from glint.pipelines.fitting import BEST_BY
from glint.pipelines.loop import EPOCHS_DONE
from glint.pipelines.trial_scores import note_score, read_scores


class Teller(tune.Callback):
    """Tells of trials as they end, and notes their scores in the folder of each, where no restart loses them.

    Ray Tune keeps how far it came with the state of the trials. `epochs` is what a trial has whose values say nothing
    of them.
    """

    def __init__(self, progress: Progress, trials: Path, epochs: int) -> None:
        self._progress = progress
        self._trials = trials
        self._epochs = epochs
        self._ended: set[str] = set()
        self._best = -1.0

    def __reduce__(self) -> tuple[Any, ...]:
        # Ray Tune pickles its callbacks, and a bar on a terminal cannot be: a restored tuning is given this one anew.
        return Teller, (Silent(), self._trials, self._epochs)

    def get_state(self) -> dict[str, Any]:
        """What has been told."""
        return {"ended": sorted(self._ended), "best": self._best}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self._ended, self._best = set(state["ended"]), float(state["best"])
        if self._ended:
            self._progress.say(f"trials that have ended before: {len(self._ended)}; going on with the others")
        self._progress.update(len(self._ended), f"best {self._best:.4f}")

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        """An epoch of a trial."""
        note_score(self._trials / trial.trial_id, int(result["epoch"]), float(result[BEST_BY]))
        self._best = max(self._best, float(result[BEST_BY]))
        note = f"best {self._best:.4f}  trial {trial.trial_id} epoch {int(result['epoch']) + 1}"
        self._progress.update(len(self._ended), note)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """The end of a trial, its own or an early one."""
        self._ended.add(trial.trial_id)
        score = max(read_scores(self._trials / trial.trial_id).values(), default=float("nan"))
        values = ", ".join(f"{key} {_written(value)}" for key, value in trial.config.items())
        done = trial.last_result.get(EPOCHS_DONE, 0)
        ended = f"after {done} of {trial.config.get('optimisation.epochs', self._epochs)} epochs"
        name = f"trial {len(self._ended)} ({trial.trial_id})"
        self._progress.say(f"{name}: best val macro-F1 {score:.4f} {ended}, with {values}")
        self._progress.update(len(self._ended), f"best {self._best:.4f}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """A trial that failed."""
        self._ended.add(trial.trial_id)
        self._progress.say(f"trial {trial.trial_id} failed; the table of results says why")


def _written(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
