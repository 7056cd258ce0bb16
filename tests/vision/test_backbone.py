from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch

from glint.core.errors import GlintError
from glint.vision.backbone import build_model, check_backbone, native_bf16


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


def test_bf16_is_native_on_a_cpu_with_matrix_units_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for has_units in (True, False):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda units=has_units: {"amx_bf16": units})
        assert native_bf16(torch.device("cpu")) is has_units
