"""The bundle: a directory with all that a server needs of a model, and no code.

weights.safetensors   the parameters
bundle.json           format, backbone, classes, preprocessing, recipe, manifest digest, metrics, decision on engines
policy.json           the decision policy, with a digest of its own
engines/              the network as OpenVINO models, with their SHA-256 in bundle.json; see engines/conversion.py
selftest.json         sample images in selftest/, and what training's own validation said of them; see selftest.py
card.md               the same for a person
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeVar

import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from glint.core.engine_choice import EngineDecisions
from glint.core.errors import GlintError
from glint.core.policy import Policy
from glint.core.recipe import Preprocessing, Recipe

FORMAT: Literal[1] = 1
T = TypeVar("T", bound=BaseModel)


class BundleInfo(BaseModel):
    """bundle.json: what the weights are, and where they come from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = FORMAT
    name: str
    backbone: str
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    recipe: Recipe
    manifest: str
    metrics: dict[str, float]
    engines: EngineDecisions | None = None


class Bundle:
    """A bundle on disk. Opening reads the two JSON files; the weights are read when asked for.

    `policy` takes the place of the bundle's own: the registry keeps later ones apart from it.
    """

    def __init__(self, directory: Path, policy: Policy | None = None) -> None:
        self.directory = directory
        self.info = read_document(directory / "bundle.json", BundleInfo)
        self.policy = policy or read_document(directory / "policy.json", Policy)

    @cached_property
    def digest(self) -> str:
        """What identifies weights, bundle.json and, by the sums in it, engine files; the policy has its own digest."""
        parts = hashlib.sha256()
        for name in ("bundle.json", "weights.safetensors"):
            with (self.directory / name).open("rb") as file:
                parts.update(hashlib.file_digest(file, "sha256").digest())
        return parts.hexdigest()[:32]

    def weights(self) -> dict[str, torch.Tensor]:
        """The parameters by name. safetensors holds tensors alone: loading runs nothing."""
        return safetensors.torch.load_file(self.directory / "weights.safetensors")


def write_bundle(directory: Path, info: BundleInfo, policy: Policy, weights: dict[str, torch.Tensor]) -> Bundle:
    """Write a bundle's files into `directory`, which is made if need be, and open it."""
    policy.check(info.classes)
    directory.mkdir(parents=True, exist_ok=True)
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    safetensors.torch.save_file(contiguous, directory / "weights.safetensors")
    write_documents(directory, info, policy)
    return Bundle(directory)


def write_documents(directory: Path, info: BundleInfo, policy: Policy) -> None:
    """Write what a bundle says of its weights, into the directory where these lie."""
    (directory / "bundle.json").write_text(info.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (directory / "policy.json").write_text(policy.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (directory / "card.md").write_text(_card(info, policy), encoding="utf-8")


def read_document(path: Path, kind: type[T]) -> T:
    """One of a bundle's JSON files; raises GlintError when it is not there or not what it should be."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise GlintError(f"{path.parent} is not a glint bundle: it has no {path.name}") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise GlintError(f"{path} is not a {path.name} of format {FORMAT}: {first['loc']}: {first['msg']}") from None


def _card(info: BundleInfo, policy: Policy) -> str:
    lines = [f"# {info.name}", "", f"An image classifier: {info.backbone} at {info.preprocessing.image_size} px."]
    lines += [
        "",
        "| | |",
        "|---|---|",
        f"| classes | {', '.join(info.classes)} |",
        f"| trained on | manifest {info.manifest} |",
    ]
    lines += [f"| {name} | {value:.4f} |" for name, value in info.metrics.items()]
    if info.engines:
        lines += [f"| engine on a CPU | {info.engines.chosen} |"]
        lines += [f"| {trial.engine} | {trial.reason} |" for trial in info.engines.trials]
    lines += ["", "Decision policy:", "", "```json", json.dumps(policy.model_dump(mode="json"), indent=2), "```", ""]
    return "\n".join(lines)
