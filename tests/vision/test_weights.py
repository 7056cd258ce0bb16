import argparse
import os
import pickle
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch

from glint.core.errors import GlintError
from glint.vision.bundle import Bundle
from glint.vision.weights import read_weights

STATE = {"conv.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.ones(2)}


class Hostile:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("pwned",)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def same(state: dict[str, torch.Tensor], expected: dict[str, torch.Tensor] = STATE) -> bool:
    return state.keys() == expected.keys() and all(state[name].equal(expected[name]) for name in expected)


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.bin", "model_best.pth.tar"])
def test_a_pytorch_file_is_read_whatever_its_name_ends_in(name: str) -> None:
    torch.save(STATE, name)
    assert same(read_weights(name).state)


def test_a_safetensors_file_is_read() -> None:
    safetensors.torch.save_file(STATE, "w.safetensors")
    assert same(read_weights("w.safetensors").state)


@pytest.mark.parametrize("key", ["state_dict", "model", "state_dict_ema", "model_ema"])
def test_a_training_checkpoint_gives_its_model(key: str) -> None:
    wrapped = {f"module.{name}": tensor for name, tensor in STATE.items()}
    torch.save({"epoch": 3, "arch": "resnet18", "args": argparse.Namespace(lr=1), key: wrapped}, "w.pth")
    assert same(read_weights("w.pth").state)


def test_averaged_weights_go_before_the_others() -> None:
    other = {name: tensor + 1 for name, tensor in STATE.items()}
    torch.save({"state_dict": other, "state_dict_ema": STATE}, "w.pth")
    assert same(read_weights("w.pth").state)


def test_a_bundle_says_of_which_backbone_and_classes_it_is(bundle: Bundle) -> None:
    weights = read_weights(str(bundle.directory))
    assert (weights.backbone, weights.classes) == (bundle.info.backbone, bundle.info.classes)
    assert same(weights.state, bundle.weights())


@pytest.mark.parametrize("content", [{"state_dict": Hostile()}, Hostile(), [Hostile()]])
def test_pickled_code_is_refused_by_name_and_not_run(content: object) -> None:
    torch.save(content, "w.pth")
    with pytest.raises(GlintError, match=r"'w\.pth' holds pickled code \(posix\.mkdir\), which is never run; save the"):
        read_weights("w.pth")
    assert not Path("pwned").exists()


@pytest.mark.parametrize("old_format", [False, True])
def test_code_in_a_bare_pickle_is_not_run_either(old_format: bool) -> None:
    if old_format:
        torch.save({"state_dict": Hostile()}, "w.pth", _use_new_zipfile_serialization=False)
    else:
        Path("w.pth").write_bytes(pickle.dumps({"state_dict": Hostile()}))
    with pytest.raises(GlintError, match=r"'w\.pth' cannot be read: it holds more than tensors") as caught:
        read_weights("w.pth")
    assert "weights_only" not in str(caught.value)
    assert not Path("pwned").exists()


def test_a_whole_pickled_model_is_told_to_come_as_a_state_dict() -> None:
    torch.save(timm.create_model("test_resnet"), "w.pth")
    with pytest.raises(GlintError, match=r"save the model's state_dict\(\) alone, best as \.safetensors"):
        read_weights("w.pth")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
@pytest.mark.parametrize("kept", [0, 3, 0.5, -1])
def test_a_damaged_file_is_one_line(name: str, kept: float) -> None:
    if name.endswith("pth"):
        torch.save(STATE, name)
    else:
        safetensors.torch.save_file(STATE, name)
    whole = Path(name).read_bytes()
    Path(name).write_bytes(whole[: int(len(whole) * kept) if isinstance(kept, float) else kept])
    with pytest.raises(GlintError, match=rf"recipe\.weights '{name}' cannot be read: ") as caught:
        read_weights(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.npz"])
def test_a_file_of_something_else_is_one_line(name: str) -> None:
    Path(name).write_text("path,label\na.jpg,good\n" * 20)
    with pytest.raises(GlintError, match=rf"recipe\.weights '{name}' cannot be read: "):
        read_weights(name)


@pytest.mark.parametrize(
    ("content", "there"), [({"net": STATE, "epoch": 3}, "there is net, epoch"), ({}, "it is empty"), ([1], "cannot be")]
)
def test_a_file_without_a_state_dict_says_what_it_has(content: object, there: str) -> None:
    torch.save(content, "w.pth")
    with pytest.raises(GlintError, match=there):
        read_weights("w.pth")


def test_what_is_not_there_and_what_is_no_bundle_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(GlintError, match=r"recipe\.weights 'absent': there is no such file"):
        read_weights("absent")
    with pytest.raises(GlintError, match=r"is not a glint bundle: it has no bundle\.json"):
        read_weights(str(tmp_path))


def test_a_bundle_with_damaged_weights_is_one_line(bundle: Bundle, tmp_path: Path) -> None:
    for file in ("bundle.json", "policy.json", "weights.safetensors"):
        data = (bundle.directory / file).read_bytes()
        (tmp_path / file).write_bytes(data[:-9] if file.endswith("tensors") else data)
    with pytest.raises(GlintError, match=r"recipe\.weights '.*' cannot be read"):
        read_weights(str(tmp_path))
