import socket
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch

from glint.core.errors import GlintError
from glint.vision.backbone import build_and_report, build_model, check_backbone, check_hub, native_bf16
from glint.vision.bundle import Bundle

CLASSES = ("good", "open", "short")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Weights of a tiny network with 1,000 classes."""
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(timm.create_model("test_resnet").state_dict(), path)
    return path


def test_model_gives_a_logit_for_each_class() -> None:
    model = build_model("test_resnet", 7, weights="none").eval()
    with torch.inference_mode():
        assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 7)


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_local_weights_fill_the_backbone_and_leave_the_head_new(source: Path, suffix: str) -> None:
    loaded = safetensors.torch.load_file(source)
    path = source.with_suffix(f".{suffix}")
    if suffix == "pth":
        torch.save(loaded, path)
    weights = build_model("test_resnet", 5, weights=str(path)).state_dict()
    same = [
        name for name, tensor in weights.items() if tensor.shape == loaded[name].shape and tensor.equal(loaded[name])
    ]
    assert {name for name in weights if name not in same} == {"fc.weight", "fc.bias"}


def test_weights_of_another_backbone_are_refused(source: Path) -> None:
    with pytest.raises(GlintError, match="do not fit the backbone resnet10t"):
        build_model("resnet10t", 5, weights=str(source))


class Hostile:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("pwned"),))


def test_pickled_code_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Hostile()}, tmp_path / "weights.pth")
    with pytest.raises(GlintError, match=r"recipe\.weights"):
        build_model("test_resnet", 5, weights=str(tmp_path / "weights.pth"))
    assert not (tmp_path / "pwned").exists()


def test_file_that_holds_no_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").write_bytes(b"abc")
    with pytest.raises(GlintError, match=r"recipe\.weights"):
        build_model("test_resnet", 5, weights=str(tmp_path / "weights.safetensors"))


def test_unknown_backbone_names_the_closest() -> None:
    with pytest.raises(GlintError, match=r"'resnet81' is not one of timm's models; did you mean .*resnet18"):
        check_backbone("resnet81")


@pytest.mark.parametrize(
    ("backbone", "asked", "complaint"),
    [
        ("resnet18", "hub:nosuch", r"'hub:nosuch': for resnet18 there are hub, hub:a1_in1k, .*, or a file of"),
        ("resnet18", "hub:", r"'hub:': for resnet18 there are hub"),
        ("convnextv2_small", "hub", r"'hub': for convnextv2_small there are none, or a file of your own"),
    ],
)
def test_weights_that_the_hub_does_not_have_are_refused_with_those_that_it_has(
    backbone: str, asked: str, complaint: str
) -> None:
    with pytest.raises(GlintError, match=complaint):
        check_hub(backbone, asked)


def test_the_hubs_own_tags_are_known_without_asking_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked_for: list[object] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *_, **__: asked_for.append(host))
    for weights in ("hub", "hub:a1_in1k", "none", "w.pth"):
        check_hub("resnet18", weights)
    with pytest.raises(GlintError, match="a1_in1k"):
        check_hub("resnet18", "hub:no_such_tag")
    assert asked_for == []


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache on a machine that does not reach the hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path


def cached(hub: Path, name: str) -> dict[str, torch.Tensor]:
    state = timm.create_model(name).state_dict()
    repository = hub / f"models--timm--{name}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots" / ("0" * 40)).mkdir(parents=True)
    safetensors.torch.save_file(state, repository / "snapshots" / ("0" * 40) / "model.safetensors")
    return state


@pytest.mark.parametrize("asked", ["hub", "hub:r160_in1k"])
def test_the_hubs_weights_come_with_a_new_head_and_are_called_by_their_tag(hub: Path, asked: str) -> None:
    given = cached(hub, "test_resnet.r160_in1k")
    model, report = build_and_report("test_resnet", CLASSES, asked)
    taken = model.state_dict()
    assert [name for name in taken if not taken[name].equal(given[name])] == ["fc.weight", "fc.bias"]
    assert report.line().startswith("weights hub:r160_in1k: all ")
    assert report.line().endswith("tensors of the backbone test_resnet with a new head")
    with torch.inference_mode():
        assert model.eval()(torch.zeros(2, 3, 64, 64)).shape == (2, 3)


def test_the_hubs_colour_weights_make_a_gray_model_for_another_image_size(hub: Path) -> None:
    cached(hub, "test_vit.r160_in1k")
    model, report = build_and_report("test_vit", CLASSES, "hub", in_chans=1, image_size=96)
    assert report.num_matched == report.num_tensors
    with torch.inference_mode():
        assert model.eval()(torch.zeros(2, 1, 96, 96)).shape == (2, 3)


def test_weights_at_the_hub_that_are_not_whole_are_refused(hub: Path) -> None:
    given = cached(hub, "test_resnet.r160_in1k")
    del given["conv1.0.weight"]
    safetensors.torch.save_file(given, next(hub.rglob("model.safetensors")))
    with pytest.raises(GlintError, match=r"'hub' do not fit the backbone test_resnet: .*Missing key.*conv1\.0\.weight"):
        build_model("test_resnet", 3, "hub")


def test_a_hub_that_is_out_of_reach_is_one_line(hub: Path) -> None:
    with pytest.raises(GlintError, match=r"recipe\.weights 'hub' cannot be loaded: .*; name a local file") as caught:
        build_model("test_resnet", 3, "hub")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"])
@pytest.mark.parametrize(("in_chans", "image_size"), [(1, 64), (3, 96), (3, 128)])
def test_any_backbone_takes_the_channels_and_the_size_asked_for(backbone: str, in_chans: int, image_size: int) -> None:
    model = build_model(backbone, 7, "none", in_chans=in_chans, image_size=image_size).eval()
    with torch.inference_mode():
        assert model(torch.zeros(2, in_chans, image_size, image_size)).shape == (2, 7)


def test_a_bundle_keeps_its_head_and_goes_by_the_name_it_is_given(bundle: Bundle) -> None:
    place = str(bundle.directory)
    model, report = build_and_report("test_resnet", bundle.info.classes, place, source="models:/boards/3")
    given = bundle.weights()
    assert all(tensor.equal(given[name]) for name, tensor in model.state_dict().items())
    assert report.line().startswith("weights models:/boards/3: all ")
    assert report.line().endswith("tensors of the backbone test_resnet and the head")


def test_random_weights_have_nothing_to_report() -> None:
    assert build_and_report("test_resnet", CLASSES, "none")[1] is None


@pytest.mark.parametrize(
    ("units", "native"), [({"amx_bf16": True}, True), ({"avx512_bf16": True}, True), ({"avx512_f": True}, False)]
)
def test_bf16_is_native_on_a_cpu_that_multiplies_it(
    units: dict[str, bool], native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: units)
    assert native_bf16(torch.device("cpu")) is native
