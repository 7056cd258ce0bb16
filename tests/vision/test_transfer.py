"""What a model takes over from weights, and what it says of it."""

from dataclasses import replace

import pytest
import timm
import torch

from glint.core.errors import GlintError
from glint.vision.transfer import load_weights
from glint.vision.weights import State, Weights

CLASSES = ("good", "open", "short")


def model(backbone: str = "test_resnet", num_classes: int = 3, seed: int = 0, **more: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    made = timm.create_model(backbone, num_classes=num_classes, **more)
    for tensor in made.state_dict().values():  # what begins as ones or zeros would look the same from everywhere
        if tensor.is_floating_point():
            tensor.add_(torch.rand_like(tensor) / 10)
    return made


def weights(backbone: str = "test_resnet", num_classes: int = 3, **more: int) -> Weights:
    return Weights("w.pth", model(backbone, num_classes, seed=1, **more).state_dict())


def equal(taken: State, given: State) -> set[str]:
    return {name for name, tensor in taken.items() if name in given and tensor.equal(given[name])}


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet", "test_nfnet"])
def test_weights_of_the_same_backbone_are_taken_whole(backbone: str) -> None:
    given, taker = weights(backbone), model(backbone)
    report = load_weights(taker, given, backbone)
    assert equal(taker.state_dict(), given.state) == set(given.state)
    assert (report.num_matched, report.matched_share, report.head) == (report.num_tensors, 1, "kept")
    assert report.line() == f"weights w.pth: all {report.num_tensors} tensors of the backbone {backbone} and the head"


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "test_convnext"])
def test_a_head_of_another_size_stays_new(backbone: str) -> None:
    given, taker = weights(backbone, num_classes=1000), model(backbone)
    before = {name: tensor.clone() for name, tensor in taker.state_dict().items()}
    report = load_weights(taker, given, backbone)
    assert set(report.left_out) == equal(taker.state_dict(), before) - equal(before, given.state)
    assert len(report.left_out) == 2
    assert (report.matched_share, report.head) == (1, "new")
    assert f"with a new head; of another shape: {', '.join(report.left_out)}" in report.line()


def test_a_backbone_without_a_head_is_enough_and_what_a_checkpoint_has_beyond_is_not_used() -> None:
    given = weights()
    state = {name: tensor for name, tensor in given.state.items() if not name.startswith("fc.")}
    report = load_weights(model(), replace(given, state=state | {"decoder.weight": torch.ones(1)}), "test_resnet")
    assert (report.head, report.unexpected, report.missing) == ("new", ("decoder.weight",), ())
    assert report.line().endswith("with a new head; unused: decoder.weight")


@pytest.mark.parametrize(
    ("backbone", "other"),
    [
        ("test_resnet", "test_convnext"),
        ("test_convnext", "test_resnet"),
        ("test_vit", "test_resnet"),
        ("test_vit2", "test_vit"),
        ("resnet18", "resnet10t"),
    ],
)
def test_weights_of_another_backbone_are_refused_with_the_first_that_do_not_fit(backbone: str, other: str) -> None:
    taker = model(backbone)
    before = {name: tensor.clone() for name, tensor in taker.state_dict().items()}
    with pytest.raises(GlintError, match=rf"^recipe\.weights 'w\.pth' do not fit the backbone {backbone}: ") as caught:
        load_weights(taker, weights(other), backbone)
    assert "and 90% are needed" in str(caught.value)
    assert "is missing" in str(caught.value) or ", not (" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert equal(taker.state_dict(), before) == set(before)


def test_weights_of_a_larger_backbone_of_the_same_kind_are_refused_although_they_fill_all_of_it() -> None:
    taker = model("resnet18")
    before = {name: tensor.clone() for name, tensor in taker.state_dict().items()}
    with pytest.raises(
        GlintError, match=r"'w\.pth' do not fit the backbone resnet18: it has no place for 96 of"
    ) as caught:
        load_weights(taker, weights("resnet34"), "resnet18")
    assert "tensors in layer1, layer2, layer3 and 1 more, and at most 10% may be left over; layer1.2." in str(
        caught.value
    )
    assert equal(taker.state_dict(), before) == set(before)


def test_a_few_tensors_more_than_the_backbone_has_are_left_over_and_told() -> None:
    given = weights("resnet18", num_classes=1000)
    more = {f"layer1.0.extra{i}": torch.ones(1) for i in range(3)} | {f"decoder.{i}": torch.ones(1) for i in range(99)}
    report = load_weights(model("resnet18"), replace(given, state=given.state | more), "resnet18")
    assert (report.matched_share, report.head, len(report.unexpected)) == (1, "new", 102)


def test_a_bundle_of_another_backbone_is_refused_by_name() -> None:
    given = replace(weights(), backbone="test_resnet", classes=CLASSES)
    with pytest.raises(GlintError, match=r"'v3' do not fit the backbone resnet18: they are of test_resnet"):
        load_weights(model("resnet18"), given, "resnet18", CLASSES, source="v3")


def test_the_head_is_kept_for_the_same_classes() -> None:
    given, taker = replace(weights(), classes=CLASSES), model()
    report = load_weights(taker, given, "test_resnet", CLASSES)
    assert equal(taker.state_dict(), given.state) == set(given.state)
    assert (report.head, report.new_classes) == ("kept", ())


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "test_convnext"])
def test_the_head_follows_its_classes_where_they_are_reordered_dropped_and_joined_by_new_ones(backbone: str) -> None:
    given = replace(weights(backbone), classes=CLASSES)
    taker = model(backbone, num_classes=4)
    before = {name: tensor.clone() for name, tensor in taker.state_dict().items()}
    report = load_weights(taker, given, backbone, ("spur", "short", "copper", "good"))
    heads = [f"{taker.pretrained_cfg['classifier']}.{part}" for part in ("weight", "bias")]
    for name in heads:
        now = taker.state_dict()[name]
        assert now[1].equal(given.state[name][2])
        assert now[3].equal(given.state[name][0])
        assert now[[0, 2]].equal(before[name][[0, 2]])
    assert (report.head, report.new_classes, report.left_out) == ("partly", ("spur", "copper"), ())
    assert "and the head of the classes it knows; new: spur, copper" in report.line()


def test_a_head_of_as_many_but_other_classes_is_new() -> None:
    given, taker = replace(weights(), classes=CLASSES), model()
    before = taker.state_dict()["fc.weight"].clone()
    assert load_weights(taker, given, "test_resnet", ("a", "b", "c")).head == "new"
    assert taker.state_dict()["fc.weight"].equal(before)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"])
@pytest.mark.parametrize(("theirs", "ours"), [(3, 1), (1, 3)])
def test_a_gray_model_takes_colour_weights_and_the_other_way_round(backbone: str, theirs: int, ours: int) -> None:
    giver = model(backbone, seed=1, in_chans=theirs).eval()
    taker = model(backbone, in_chans=ours).eval()
    report = load_weights(taker, Weights("w.pth", giver.state_dict()), backbone)
    assert (report.num_matched, report.head) == (report.num_tensors, "kept")
    gray = torch.rand(2, 1, *giver.pretrained_cfg["input_size"][1:])
    with torch.inference_mode():
        # What a gray picture is to a colour model, three equal channels, it is to the model made of it.
        expected, found = giver(gray.expand(-1, theirs, -1, -1)), taker(gray.expand(-1, ours, -1, -1))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_position_embeddings_are_resized_to_the_image() -> None:
    giver, taker = model("test_vit", seed=1), model("test_vit", img_size=96)
    report = load_weights(taker, Weights("w.pth", giver.state_dict()), "test_vit")
    assert report.matched_share == 1
    with torch.inference_mode():
        assert taker.eval()(torch.zeros(1, 3, 96, 96)).shape == (1, 3)


def test_a_checkpoint_of_before_batches_were_counted_is_whole() -> None:
    state = {name: tensor for name, tensor in weights().state.items() if "num_batches" not in name}
    assert load_weights(model(), Weights("w.pth", state), "test_resnet").missing == ()


def test_half_precision_weights_are_taken_as_the_models_own_type() -> None:
    given = {name: tensor.half() for name, tensor in weights().state.items()}
    taker = model()
    assert load_weights(taker, Weights("w.pth", given), "test_resnet").matched_share == 1
    assert taker.state_dict()["fc.weight"].equal(given["fc.weight"].float())
