"""What a recipe's options do to the learner: each leaves a trace that a no-op would not."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray
import torch
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer
from torch import nn

from glint.core.errors import GlintError
from glint.core.recipe import Recipe, with_fields
from glint.pipelines import frozen, loop
from glint.pipelines.learner import Learner, TrainingPlan
from glint.pipelines.loading import Batch
from glint.vision.backbone import build_model

CLASSES = ("bad", "good", "worse")
SIZE = 64
TARGETS = np.repeat([0, 1, 2], [90, 8, 2])


def batch_of(num_images: int) -> Batch:
    """Random images, all readable."""
    generator = np.random.default_rng(0)
    nothing = np.full(num_images, "", dtype=object)
    return {
        "uri": np.array([str(i) for i in range(num_images)], dtype=object),
        "image": generator.integers(0, 256, (num_images, 3, SIZE, SIZE), dtype=np.uint8),
        "target": np.arange(num_images) % len(CLASSES),
        "error_type": nothing,
        "error": nothing,
        "epoch": np.zeros(num_images, dtype=np.int32),
    }


@pytest.fixture
def learner_with(recipe: Recipe, ray_cluster: None) -> Callable[[dict[str, Any]], Learner]:
    """The learner of a single worker with other values for fields of the recipe; it is given batches by hand."""

    def make(values: dict[str, Any]) -> Learner:
        science = with_fields(recipe, {"precision": "fp32", **values})
        names = [str(i) for i in range(len(TARGETS))]
        table = pa.table({"uri": names, "etag": names, "target": TARGETS})
        torch.manual_seed(0)
        initial = ray.put(build_model(science.backbone, len(CLASSES), "none", image_size=SIZE).state_dict())
        plan = TrainingPlan(science, CLASSES, table, table, None, initial, accumulate=science.optimisation.accumulate)  # type: ignore[arg-type]
        made: list[Learner] = []
        TorchTrainer(lambda: made.append(Learner(plan)), scaling_config=ScalingConfig(num_workers=0)).fit()
        return made[0]

    return make


def weights_of(network: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten().clone() for parameter in network.parameters()])


def test_averaged_weights_follow_the_raw_ones_and_are_those_that_are_judged(
    learner_with: Callable[..., Learner],
) -> None:
    learner = learner_with({"optimisation.ema_decay": 0.9})
    before = weights_of(learner.network)
    for step in range(3):
        learner.step(batch_of(8), step, SIZE)
    raw, averaged = weights_of(learner.network), weights_of(learner.judged)
    assert 0 < (averaged - before).norm() < (raw - before).norm()
    plain = learner_with({})
    assert plain.judged is plain.network


def test_a_restored_learner_goes_on_as_the_one_that_was_saved(
    learner_with: Callable[..., Learner], tmp_path: Path
) -> None:
    values = {"optimisation.ema_decay": 0.9, "optimisation.patience": 3}
    saved = learner_with(values)
    for step in range(saved.share.steps):
        saved.step(batch_of(8), step, SIZE)
    saved.note_score(0.9)
    saved.note_score(0.5)
    saved.save(tmp_path, 1)
    restored = learner_with(values)
    restored.restore(ray.train.Checkpoint.from_directory(tmp_path))
    assert (restored.epoch, restored.best, restored.stale) == (1, 0.9, 1)
    for learner in (saved, restored):
        learner.begin(1)
        learner.step(batch_of(16), saved.share.steps, SIZE)
    for one in ("network", "judged"):
        torch.testing.assert_close(weights_of(getattr(restored, one)), weights_of(getattr(saved, one)))
    assert (weights_of(saved.network) - weights_of(saved.judged)).norm() > 0


def test_a_step_in_parts_has_the_gradients_of_a_whole_one(learner_with: Callable[..., Learner]) -> None:
    gradients = []
    for accumulate in (1, 4):
        learner = learner_with({"optimisation.accumulate": accumulate})
        learner.model.eval()  # running statistics, for those of a part are not those of the batch
        learner.step(batch_of(10), 0, SIZE)
        gradients.append(
            torch.cat([one.grad.flatten() for one in learner.network.parameters() if one.grad is not None])
        )
    assert gradients[0].norm() > 0
    torch.testing.assert_close(gradients[1], gradients[0])


def test_gradients_are_clipped_to_the_norm_of_the_recipe(learner_with: Callable[..., Learner]) -> None:
    norms = []
    for clip_norm in (None, 1e-3):
        learner = learner_with({"optimisation.clip_norm": clip_norm})
        learner.step(batch_of(8), 0, SIZE)
        gradients = [one.grad.flatten() for one in learner.network.parameters() if one.grad is not None]
        norms.append(float(torch.cat(gradients).norm()))
    assert norms[0] > 1e-2
    assert norms[1] == pytest.approx(1e-3, rel=1e-3)


def test_earlier_layers_learn_more_slowly_by_the_decay_of_the_recipe(learner_with: Callable[..., Learner]) -> None:
    learner = learner_with({"optimisation.layer_decay": 0.5})
    learner.step(batch_of(8), 0, SIZE)
    rates = {id(one): group["lr"] for group in learner.optimizer.param_groups for one in group["params"]}
    by_layer = [rates[id(parameter)] for parameter in learner.network.parameters()]
    assert by_layer == sorted(by_layer)
    assert rates[id(learner.network.get_classifier().weight)] == by_layer[-1]  # type: ignore[operator]
    assert by_layer[-1] / by_layer[0] >= 4
    plain = learner_with({})
    plain.step(batch_of(8), 0, SIZE)
    assert len({group["lr"] for group in plain.optimizer.param_groups}) == 1


def test_the_network_sees_images_of_the_epochs_size_with_a_part_erased(learner_with: Callable[..., Learner]) -> None:
    seen: list[torch.Tensor] = []
    for erase in (0.0, 1.0):
        learner = learner_with({"augmentation.erase": erase})
        learner.model.register_forward_pre_hook(lambda _, images: seen.append(images[0].clone()))
        learner.step(batch_of(8), 0, 32)
    whole, erased = seen
    assert whole.shape == erased.shape == (8, 3, 32, 32)
    changed = (whole != erased).any(1).float().mean((1, 2))
    assert changed.min() > 0, "each image has lost a part"
    assert changed.max() < 0.5


@pytest.mark.parametrize(
    ("values", "validated", "featured"),
    [
        ({}, 32, 32),
        ({"optimisation.batch_size": 256}, 256, 64),
        ({"optimisation.accumulate": 4}, 8, 8),
        ({"optimisation.accumulate": 4, "views": "dihedral"}, 1, 8),
        ({"optimisation.accumulate": 16, "views": "dihedral"}, 1, 2),
    ],
)
def test_where_steps_go_in_parts_so_do_validation_and_the_frozen_phase(
    learner_with: Callable[..., Learner],
    monkeypatch: pytest.MonkeyPatch,
    values: dict[str, Any],
    validated: int,
    featured: int,
) -> None:
    sizes: list[int] = []

    def image_batches(table: pa.Table, share: Any, load: Any, batch_size: int, cache: Any = None) -> Iterator[Batch]:
        sizes.append(batch_size)
        yield from [batch_of(1)] * table.num_rows

    for module in (loop, frozen):
        monkeypatch.setattr(module, "image_batches", image_batches)
    learner = learner_with(values)
    assert loop.validate(learner).shape == (len(TARGETS), len(CLASSES))
    frozen._view(learner, 0).__next__()
    assert sizes == [validated, featured]


def test_a_loss_that_is_no_number_any_more_ends_training(learner_with: Callable[..., Learner]) -> None:
    learner = learner_with({})
    with torch.no_grad():
        next(learner.network.parameters()).fill_(torch.nan)
    batches = iter([batch_of(8)] * learner.share.steps)
    loss = loop.train_epoch(learner, batches, 0)
    with pytest.raises(GlintError, match=r"its loss is nan with recipe\.optimisation\.lr 0\.5; choose a lower one"):
        loop._checked(loss, "optimisation.lr", 0.5)
    assert loop._checked(1.5, "optimisation.lr", 0.5) == 1.5


def fitted_head(learner: Learner, views: np.ndarray[Any, Any]) -> tuple[float, nn.Linear]:
    head = frozen.linear_head(learner.network)
    return frozen._fit(learner, head, views), head


def test_a_view_that_cannot_be_read_spoils_no_head(learner_with: Callable[..., Learner]) -> None:
    learner = learner_with({"frozen.epochs": 5})
    width = frozen.linear_head(learner.network).in_features
    views = np.random.default_rng(0).normal(size=(3, len(TARGETS), width)).astype(np.float16)
    views[1, :10] = views[2, 5:15] = views[:, 20] = np.nan
    loss, head = fitted_head(learner, views)
    assert np.isfinite(loss)
    assert torch.isfinite(head.weight).all()


def test_without_a_readable_image_there_is_nothing_to_learn(learner_with: Callable[..., Learner]) -> None:
    learner = learner_with({})
    width = frozen.linear_head(learner.network).in_features
    with pytest.raises(GlintError, match="none of the training images can be read"):
        fitted_head(learner, np.full((1, len(TARGETS), width), np.nan, dtype=np.float16))


def test_the_head_sees_rare_classes_as_often_where_sampling_is_balanced(learner_with: Callable[..., Learner]) -> None:
    shares = {}
    for sampling in ("natural", "balanced"):
        values = {"optimisation.sampling": sampling, "optimisation.label_smoothing": 0.0, "frozen.epochs": 200}
        learner = learner_with(values | {"frozen.batch_size": 50, "frozen.lr": 0.05})
        width = frozen.linear_head(learner.network).in_features
        _, head = fitted_head(learner, np.zeros((1, len(TARGETS), width), dtype=np.float16))
        shares[sampling] = head.bias.detach().softmax(0).tolist()
    assert shares["natural"] == pytest.approx([0.9, 0.08, 0.02], abs=0.02)
    assert shares["balanced"] == pytest.approx([1 / 3] * 3, abs=0.05)
