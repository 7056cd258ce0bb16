"""Where weights are found before a run begins, and what tells one run's weights from another's."""

import asyncio
from functools import partial
from pathlib import Path

import pytest
import safetensors.torch
import torch
from azure.storage.blob import ContainerClient
from tests.faults import Policy, injected

from glint.adapters.blob_account import BlobAccount
from glint.adapters.blob_admin import open_service
from glint.adapters.images import Images
from glint.adapters.registry import Registry
from glint.core.errors import GlintError
from glint.emulators.faults import Asked, Fault
from glint.emulators.proxy import Proxy
from glint.emulators.servers import Azurite
from glint.pipelines.training_run import Trained
from glint.pipelines.weights import resolve_weights, weights_identity
from glint.settings import Settings
from glint.vision.backbone import build_and_report
from glint.vision.bundle import Bundle
from glint.wiring import open_registry


@pytest.fixture
def nowhere(tmp_path: Path) -> Registry:
    """A registry that nothing was registered in."""
    return Registry(f"sqlite:///{tmp_path}/mlflow.db", tmp_path)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file({"fc.bias": torch.arange(9.0)}, path)
    return path


def resolve(weights: str, registry: Registry, cache: Path, images: Images | None = None) -> str:
    return resolve_weights(weights, images or Images(), registry, cache)


@pytest.mark.parametrize("weights", ["none", "hub", "hub:a1_in1k"])
def test_what_needs_no_finding_stays_and_identifies_itself(weights: str, nowhere: Registry, tmp_path: Path) -> None:
    assert resolve(weights, nowhere, tmp_path) == weights
    assert weights_identity(weights) == weights


def test_a_file_is_found_from_here_and_identified_by_its_content(
    state: Path, nowhere: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = resolve("w.safetensors", nowhere, tmp_path)
    assert found == str(state)
    assert resolve(state.as_uri(), nowhere, tmp_path) == found
    before = weights_identity(found)
    (tmp_path / "copy.safetensors").write_bytes(state.read_bytes())
    assert weights_identity(resolve("copy.safetensors", nowhere, tmp_path)) == before
    safetensors.torch.save_file({"fc.bias": torch.zeros(9)}, state)
    assert weights_identity(found) != before


def test_a_bundle_is_identified_by_its_digest(bundle: Bundle, nowhere: Registry, tmp_path: Path) -> None:
    assert weights_identity(resolve(str(bundle.directory), nowhere, tmp_path)) == bundle.digest


@pytest.mark.parametrize("weights", ["absent.safetensors", "https://example.org/w.pth", "Hub", ""])
def test_what_is_not_there_is_refused_with_the_choices(
    weights: str, nowhere: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(GlintError, match=rf"recipe\.weights '{weights}' .*none, hub, .* or models:/NAME/VERSION"):
        resolve(weights, nowhere, tmp_path / "cache")


def test_a_registered_version_is_found_by_alias_and_by_number(trained: Trained, settings: Settings) -> None:
    registry = open_registry(settings)
    registry.promote(trained.model, trained.version, "teacher")
    by_alias, by_version = (
        resolve(weights, registry, settings.home_path) for weights in ("models:/boards@teacher", trained.model_uri)
    )
    assert weights_identity(by_alias) == weights_identity(by_version) == trained.bundle_digest
    classes = Bundle(Path(by_alias)).info.classes
    _, report = build_and_report(
        "test_resnet", (*classes, "scratch"), by_alias, image_size=64, source=trained.model_uri
    )
    assert (report.matched_share, report.head, report.new_classes) == (1, "partly", ("scratch",))


@pytest.mark.parametrize(
    ("weights", "complaint"),
    [
        ("models:/absent@champion", r"recipe\.weights 'models:/absent@champion': no model 'absent' is registered"),
        ("models:/absent", r"recipe\.weights 'models:/absent': must be models:/NAME@ALIAS, models:/NAME/VERSION or"),
    ],
)
def test_a_version_that_is_not_there_is_one_line(
    weights: str, complaint: str, nowhere: Registry, tmp_path: Path
) -> None:
    with pytest.raises(GlintError, match=complaint):
        resolve(weights, nowhere, tmp_path)


@pytest.fixture(scope="module")
def container(azurite: Azurite) -> ContainerClient:
    return open_service(_account(azurite)).create_container("weights")


def _account(azurite: Azurite) -> BlobAccount:
    return BlobAccount(azurite.account, azurite.endpoint, partial(dict, account_key=azurite.key))


def _images(azurite: Azurite, endpoint: str | None = None, **more: int) -> Images:
    return Images(azurite.account, endpoint or azurite.endpoint, partial(dict, account_key=azurite.key), **more)


def test_a_blob_larger_than_an_image_may_be_is_downloaded_once_for_each_etag(
    azurite: Azurite, container: ContainerClient, state: Path, nowhere: Registry, tmp_path: Path
) -> None:
    images = _images(azurite, max_bytes=10)
    client = container.get_blob_client("a b/w.safetensors")
    client.upload_blob(state.read_bytes())
    first = resolve("az://weights/a b/w.safetensors", nowhere, tmp_path / "cache", images)
    assert Path(first).read_bytes() == state.read_bytes()
    assert Path(first).name == "w.safetensors"
    written = Path(first).stat().st_mtime_ns
    assert resolve("az://weights/a b/w.safetensors", nowhere, tmp_path / "cache", images) == first
    assert Path(first).stat().st_mtime_ns == written
    client.upload_blob(b"other", overwrite=True)
    second = resolve("az://weights/a b/w.safetensors", nowhere, tmp_path / "cache", images)
    assert Path(second).read_bytes() == b"other"
    assert weights_identity(second) != weights_identity(first)
    assert sorted(path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()) == ["w.safetensors"] * 2


@pytest.mark.parametrize(
    ("weights", "complaint"),
    [
        ("az://weights/absent.pth", r"recipe\.weights: az://weights/absent\.pth does not exist"),
        ("az://absent/w.pth", r"recipe\.weights: az://absent/w\.pth does not exist"),
        ("az://weights", r"recipe\.weights: az://weights cannot be read: name with empty parts"),
    ],
)
def test_a_blob_that_is_not_there_is_one_line(
    weights: str, complaint: str, azurite: Azurite, container: ContainerClient, nowhere: Registry, tmp_path: Path
) -> None:
    with pytest.raises(GlintError, match=complaint):
        resolve(weights, nowhere, tmp_path / "cache", _images(azurite))


def test_without_an_account_the_setting_is_named(nowhere: Registry, tmp_path: Path) -> None:
    with pytest.raises(GlintError, match="needs a storage account: set GLINT_BLOB_ACCOUNT"):
        resolve("az://weights/w.pth", nowhere, tmp_path)


def test_a_download_in_parts_outlives_faults_and_a_replaced_blob_leaves_nothing_behind(
    azurite: Azurite,
    blob_proxy: Proxy,
    container: ContainerClient,
    nowhere: Registry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("glint.adapters.downloads.PART_BYTES", 1000)
    client = container.get_blob_client("parts.bin")
    content = bytes(range(256)) * 15
    client.upload_blob(content)
    images = _images(azurite, f"{blob_proxy.url}/{azurite.account}")
    faults = Policy(Fault.status(503), Fault.truncate(), Fault.reset(), share=0.5, operations=("get",), seed=1)
    with injected(blob_proxy, faults):
        found = resolve("az://weights/parts.bin", nowhere, tmp_path / "cache", images)
    assert Path(found).read_bytes() == content
    assert len(faults.made) > 1

    async def replaced(asked: Asked) -> None:
        nonlocal parts
        parts += asked.operation == "get"
        if parts == 2:
            await asyncio.to_thread(client.upload_blob, content[::-1], overwrite=True)

    parts = 0
    client.upload_blob(content, overwrite=True)
    with (
        injected(blob_proxy, replaced),
        pytest.raises(GlintError, match=r"'az://weights/parts\.bin' was replaced while it was read; run it again"),
    ):
        resolve("az://weights/parts.bin", nowhere, tmp_path / "cache", images)
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == [Path(found)]
