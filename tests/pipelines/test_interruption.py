"""Training whose worker is killed goes on from its last epoch, to the score of one that is left alone."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from tests.pipelines.progress import Told

from glint.core.recipe import with_fields
from glint.pipelines.fitting import Workers
from glint.pipelines.train import train
from glint.pipelines.training_run import TrainingRun

pytestmark = pytest.mark.slow


def descendants(pid: int) -> list[int]:
    """Processes below one, Ray's daemons and workers included."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (entry / "stat").exists():
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found, new = set(), {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new} - found
        found |= new
    return sorted(found)


def training_workers() -> list[int]:
    """The training workers below this process."""
    below = descendants(os.getpid())
    return [pid for pid in below if b"RayTrainWorker" in Path(f"/proc/{pid}/cmdline").read_bytes()]


class Killer(Told):
    """Kills one training worker below this process once the third epoch is over."""

    workers = killed = 0

    def say(self, line: str) -> None:
        super().say(line)
        if line.startswith("epoch 3/") and not self.killed:
            pids = training_workers()
            os.kill(pids[-1], signal.SIGKILL)
            self.workers, self.killed = len(pids), 1


def test_a_killed_worker_costs_no_more_than_its_epoch(training: TrainingRun) -> None:
    recipe = with_fields(training.recipe, {"optimisation.epochs": 5})
    alone = train(replace(training, recipe=recipe, name="left-alone"), Told())
    killer = Killer()
    killed = train(replace(training, recipe=recipe, name="killed"), killer)
    assert (killer.workers, killer.killed) == (1, 1)
    assert "a training worker died (1 of at most 3); going on from the last epoch" in killer.lines
    epochs = [line.partition(":")[0] for line in killer.lines if line.startswith("epoch")]
    assert epochs[0] == "epoch 1/5"
    assert epochs[-1] == "epoch 5/5"
    assert epochs.count("epoch 1/5") == 1
    assert killed.metrics == pytest.approx(alone.metrics)


def test_the_death_of_one_of_two_workers_is_a_death_to_the_other_too(training: TrainingRun) -> None:
    recipe = with_fields(training.recipe, {"optimisation.epochs": 6})
    killer = Killer()
    killed = train(replace(training, recipe=recipe, name="one-of-two", workers=Workers(2, 2)), killer)
    assert (killer.workers, killer.killed) == (2, 1)
    assert "a training worker died (1 of at most 3); going on from the last epoch" in killer.lines
    epochs = [line.partition(":")[0] for line in killer.lines if line.startswith("epoch")]
    first, last = (f"epoch {number}/6 on 2 of 2 workers" for number in (1, 6))
    assert (epochs[0], epochs[-1], epochs.count(first)) == (first, last, 1)
    assert killed.metrics["val_macro_f1"] > 0
