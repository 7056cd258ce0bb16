import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import ray
import ray.data
import ray.exceptions
import torch
from ray.train.v2.api.exceptions import WorkerGroupError
from tests.pipelines.progress import Told

from glint.core.errors import GlintError
from glint.core.recipe import Optimisation, Recipe, with_fields
from glint.pipelines import fitting
from glint.pipelines.fitting import Room, Workers, _halved, check_workers, parse_workers
from glint.pipelines.growing import image_size
from glint.pipelines.learner import TrainingPlan
from glint.pipelines.share import Share
from glint.pipelines.train import make_plan
from glint.pipelines.training_run import TrainingRun


@pytest.mark.parametrize(("text", "bounds"), [("1", (1, 1)), ("4", (4, 4)), ("2:4", (2, 4))])
def test_workers_are_a_number_or_a_range(text: str, bounds: tuple[int, int]) -> None:
    workers = parse_workers(text, use_gpu=False)
    assert (workers.least, workers.most) == bounds
    assert str(workers) == text


@pytest.mark.parametrize("text", ["0", "-1", "4:2", "a", "1:", ":2", "1:2:3", "1.5", ""])
def test_other_workers_are_refused(text: str) -> None:
    with pytest.raises(GlintError, match="must be a number above 0, or MIN:MAX"):
        parse_workers(text, use_gpu=False)


@pytest.mark.parametrize(
    ("workers", "values", "reason"),
    [
        (Workers(1, 3), {"optimisation.batch_size": 2}, "batch_size 2 must be at least 3 for --workers 1:3$"),
        (
            Workers(3, 3),
            {"optimisation.batch_size": 32, "optimisation.accumulate": 16},
            "batch_size 32 must be at least 48 for --workers 3, in recipe.optimisation.accumulate 16 parts",
        ),
        (
            Workers(2, 2),
            {"optimisation.batch_size": 2, "augmentation.cutmix": 1},
            "batch_size 2 must be at least 4 for --workers 2, of 2 images each",
        ),
        (Workers(use_gpu=True), {}, "--gpu with --workers 1 needs 1 GPUs; this Ray has 0"),
        (Workers(32, 32), {}, "--workers 32 is too many for this Ray"),
    ],
)
def test_workers_that_cannot_be_placed_or_share_a_batch_are_refused(
    ray_cluster: None, recipe: Recipe, workers: Workers, values: dict[str, Any], reason: str
) -> None:
    with pytest.raises(GlintError, match=reason):
        check_workers(workers, with_fields(recipe, values))


@pytest.mark.parametrize("workers", [Workers(1, 3), Workers(3, 3)])
def test_a_batch_need_not_be_a_multiple_of_the_workers(ray_cluster: None, recipe: Recipe, workers: Workers) -> None:
    mixed = with_fields(recipe, {"optimisation.batch_size": 32, "augmentation.mixup": 0.2})
    check_workers(workers, mixed)
    unit = mixed.augmentation.num_mixed
    shares = [Share(100, rank, workers.most, seed=0, batch_size=32, unit=unit) for rank in range(workers.most)]
    assert [share.local_batch for share in shares] == [10, 10, 12]


@pytest.mark.parametrize(("cpus", "runs", "most"), [(1, 1, 0), (2, 1, 2), (4, 1, 6), (4, 2, 3)])
def test_workers_leave_a_cpu_for_what_feeds_them(
    monkeypatch: pytest.MonkeyPatch, recipe: Recipe, cpus: int, runs: int, most: int
) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": float(cpus)})
    with pytest.raises(GlintError, match=rf"whose {cpus} CPUs allow {most} workers[ each]*, with 1 left for reading"):
        check_workers(Workers(most + 1, most + 1), recipe, runs)
    if most:
        check_workers(Workers(most, most), recipe, runs)
        assert Room(runs).fitted(Workers(1, 32)) == Workers(1, most)


def test_too_little_memory_halves_the_parts_of_a_step_down_to_single_images() -> None:
    recipe = SimpleNamespace(optimisation=SimpleNamespace(batch_size=8))
    plan = cast(Any, TrainingPlan)(recipe, ("a", "b"), None, None, None, None)
    assert _halved(plan, Workers()).accumulate == 2
    assert _halved(replace(plan, accumulate=4), Workers()).accumulate == 8
    with pytest.raises(GlintError, match="for a single image"):
        _halved(replace(plan, accumulate=8), Workers())
    with pytest.raises(GlintError, match="for a single image"):
        _halved(replace(plan, accumulate=4), Workers(2, 2))


def test_images_grow_to_their_full_size_over_three_quarters_of_the_epochs(recipe: Recipe) -> None:
    settings = recipe.preprocessing.model_copy(update={"image_size": 128})
    growing = recipe.model_copy(
        update={"preprocessing": settings, "optimisation": Optimisation(epochs=8, start_size=64)}
    )
    assert [image_size(growing, epoch) for epoch in range(8)] == [64, 64, 64, 96, 96, 96, 128, 128]
    assert image_size(recipe, 0) == recipe.preprocessing.image_size


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_the_last_epoch_has_images_of_their_full_size_however_few_there_are(recipe: Recipe, epochs: int) -> None:
    growing = with_fields(recipe, {"optimisation.epochs": epochs, "optimisation.start_size": 32})
    sizes = [image_size(growing, epoch) for epoch in range(epochs)]
    assert sizes == [32] * (epochs - 1) + [recipe.preprocessing.image_size]


def test_rays_controller_need_not_import_what_trains(training: TrainingRun, tmp_path: Path) -> None:
    plan = make_plan(training, Told())
    told = fitting._trainer(tmp_path / "run", plan, Workers(), []).train_run_context
    pickled = ray.cloudpickle.dumps((told, ray.data.DataContext.get_current()))
    assert set(re.findall(rb"glint\.pipelines\.\w+", pickled)) == {
        b"glint.pipelines.no_process_group",
        b"glint.pipelines.unhurried",
    }


class Failing:
    """A trainer that fails as Ray Train does, and then works."""

    def __init__(self, *causes: Exception) -> None:
        """Each cause is that of the only worker, or the failure of several."""
        self.causes = list(causes)
        self.plans: list[TrainingPlan] = []

    def __call__(self, directory: Path, plan: TrainingPlan, *_: object) -> Any:
        self.plans.append(plan)
        return self

    def fit(self) -> str:
        if self.causes:
            cause = self.causes.pop(0)
            raise cause if isinstance(cause, WorkerGroupError) else WorkerGroupError("failed", {0: cause})
        return "done"


def fitted(monkeypatch: pytest.MonkeyPatch, failing: Failing) -> tuple[Any, list[str]]:
    recipe = SimpleNamespace(optimisation=SimpleNamespace(batch_size=8))
    plan, told = cast(Any, TrainingPlan)(recipe, ("a", "b"), None, None, None, None), Told()
    monkeypatch.setattr(fitting, "_trainer", failing)
    return fitting.fit(Path(), plan, Workers(), Room(), told), told.lines


def test_training_that_runs_out_of_gpu_memory_goes_on_in_smaller_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    failing = Failing(torch.OutOfMemoryError(), torch.OutOfMemoryError())
    result, lines = fitted(monkeypatch, failing)
    assert result == "done"
    assert [plan.accumulate for plan in failing.plans] == [1, 2, 4]
    assert lines[-1] == "too little GPU memory: on with 2 images at a time, 4 parts to a step"


def test_training_goes_on_after_deaths_but_not_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    died = ray.exceptions.ActorDiedError()
    result, lines = fitted(monkeypatch, Failing(died, died))
    assert (result, len(lines)) == ("done", 2)
    with pytest.raises(WorkerGroupError):
        fitted(monkeypatch, Failing(died, died, died, died))


def test_those_that_lost_the_dead_one_are_no_bugs_but_a_bug_beside_them_is(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:31043")
    result, lines = fitted(monkeypatch, Failing(lost, torch.distributed.DistNetworkError("reset")))
    assert (result, len(lines)) == ("done", 2)
    with pytest.raises(WorkerGroupError):
        fitted(monkeypatch, Failing(RuntimeError("mat1 and mat2 shapes cannot be multiplied")))
    bug = WorkerGroupError("failed", {0: lost, 1: KeyError("bug")})  # type: ignore[dict-item]
    failing = Failing(bug)
    with pytest.raises(WorkerGroupError):
        fitted(monkeypatch, failing)
    assert len(failing.plans) == 1


@pytest.mark.parametrize(("cause", "raised"), [(GlintError("no"), GlintError), (KeyError("bug"), WorkerGroupError)])
def test_mistakes_and_bugs_are_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, cause: Exception, raised: type[Exception]
) -> None:
    failing = Failing(cause)
    with pytest.raises(raised):
        fitted(monkeypatch, failing)
    assert len(failing.plans) == 1
