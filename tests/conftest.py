"""Fixtures that any test may ask for: one Ray, one set of boards, one trained model, and Azure on this machine."""

import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import hypothesis
import pytest

from glint.settings import Settings, quieten

quieten(Settings())  # before the libraries that it quietens

import torch

from glint.adapters.ray_start import shut_down
from glint.core.job_options import JobOptions
from glint.core.manifest import Manifest
from glint.core.policy import Policy
from glint.core.recipe import Augmentation, Optimisation, Preprocessing, Recipe
from glint.emulators.fidelity import CosmosProxy
from glint.emulators.install import Installed, install
from glint.emulators.proxy import Proxy
from glint.emulators.servers import Azurite, CosmosEmulator
from glint.pipelines.batch_run import BatchRun
from glint.pipelines.boards import write_boards
from glint.pipelines.snapshot import snapshot
from glint.pipelines.train import train
from glint.pipelines.training_run import Trained, TrainingRun
from glint.vision.backbone import build_model
from glint.vision.bundle import Bundle, BundleInfo, write_bundle
from glint.wiring import open_images, open_limits, open_model, open_predictor, open_registry, open_store, start_ray
from tests.colours import colour_bundle, pictures

REPOSITORY = Path(__file__).resolve().parents[1]
IMAGE_SIZE = 64
LONGEST = ("test_readme.py", "test_training_modes.py", "test_tune.py", "test_interruption.py", "test_quiet.py")

# A shell leaves its background commands deaf to Ctrl-C, and their children too; the tests of it must not hang on that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine must not fail a property by its pace.
hypothesis.settings.register_profile("glint", deadline=None)
hypothesis.settings.load_profile("glint")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, so that two processes of slow tests end at about the same time."""
    items.sort(key=lambda item: (*LONGEST, item.path.name).index(item.path.name))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real inspection data beside the repository, which a clone does not have."""
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs the real inspection data in ../shared, which a clone does not have")
    return folder


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of a home of the tests' own."""
    return Settings(home=tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def ray_cluster(settings: Settings) -> Iterator[None]:
    """The one Ray of the fast tests."""
    start_ray(settings, with_jobs=True)
    yield
    shut_down()


@pytest.fixture(scope="session")
def serve_port() -> int:
    """The one port of Ray Serve, which all tests on one Ray share."""
    from glint.serving.addresses import free_port

    return free_port("127.0.0.1", 0)


@pytest.fixture(scope="session")
def boards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small generated boards, a few of them spoilt, with labels.csv."""
    folder = tmp_path_factory.mktemp("boards")
    write_boards(folder, 280, size=IMAGE_SIZE)
    (sorted((folder / "good").glob("*L01*"))[0]).write_bytes(b"")
    picture = sorted((folder / "open").glob("*L02*"))[0]
    picture.write_bytes(picture.read_bytes()[:300])
    return folder


@pytest.fixture(scope="session")
def manifest(boards: Path, settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """The boards, split by lot."""
    out = tmp_path_factory.mktemp("manifest") / "manifest.parquet"
    labels = str(boards / "labels.csv")
    snapshot(open_images(settings), str(boards), out, labels, "lot", val_groups=["L07"], test_groups=["L03", "L08"])
    return Manifest.open(out)


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    """Two epochs of a tiny network: what it learns does not matter, that it learns does."""
    return Recipe(
        name="boards",
        backbone="test_resnet",
        weights="none",
        preprocessing=Preprocessing(image_size=IMAGE_SIZE),
        augmentation=Augmentation(policy="dihedral"),
        optimisation=Optimisation(epochs=2, batch_size=32, lr=0.003, warmup_epochs=0.5),
    )


@pytest.fixture(scope="session")
def training(recipe: Recipe, manifest: Manifest, settings: Settings, ray_cluster: None) -> TrainingRun:
    """The run that trains `recipe` on `manifest`."""
    return TrainingRun(
        recipe=recipe,
        manifest=manifest,
        images=open_images(settings),
        limits=open_limits(settings),
        registry=open_registry(settings),
        home=settings.home_path,
    )


@pytest.fixture(scope="session")
def trained(training: TrainingRun) -> Trained:
    """A trained and registered model."""
    from glint.core.progress import Silent

    return train(training, Silent())


@pytest.fixture(scope="session")
def batch(trained: Trained, manifest: Manifest, settings: Settings) -> BatchRun:
    """A job of the trained model on the manifest."""
    found = open_model(trained.model_uri, settings)
    return BatchRun(
        model_uri=found.uri,
        model=found.ref,
        open_predictor=partial(open_predictor, found.uri, settings),
        input=str(manifest.path),
        manifest=manifest,
        images=open_images(settings),
        store=open_store(settings),
        home=settings.home_path,
        options=JobOptions(top_k=3),
    )


@pytest.fixture(scope="session")
def bundle(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A small model with random weights: what it says is meaningless, how it is asked is real."""
    torch.manual_seed(0)
    classes = ("good", "mousebite", "open", "short")
    info = BundleInfo(
        name=recipe.name,
        backbone=recipe.backbone,
        classes=classes,
        preprocessing=recipe.preprocessing,
        recipe=recipe,
        manifest="0" * 32,
        metrics={},
    )
    weights = build_model(recipe.backbone, len(classes), weights="none").state_dict()
    policy = Policy(review_below=0.6, accept_classes=("good",))
    return write_bundle(tmp_path_factory.mktemp("model") / "bundle", info, policy, weights)


# Three colours, for tests that need several models of which some are wrong.


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Little pictures in groups; their folder lies beside the manifest."""
    return pictures(tmp_path_factory.mktemp("colours") / "pictures")


@pytest.fixture(scope="session")
def sighted(colours: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A model that tells the colours apart."""
    return colour_bundle(tmp_path_factory.mktemp("sighted") / "artifacts" / "bundle", colours)


@pytest.fixture(scope="session")
def blind(colours: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A model that never sees red."""
    return colour_bundle(tmp_path_factory.mktemp("blind") / "artifacts" / "bundle", colours, blind_to="red")


# Azure on this machine. Containers and databases of a test should have names of their own.


@pytest.fixture(scope="session")
def emulators() -> Installed:
    """The emulators' packages, installed once beside those of Python."""
    return install(Path(sys.prefix) / "emulators")


@pytest.fixture(scope="session")
def azurite(emulators: Installed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    with Azurite(emulators, tmp_path_factory.mktemp("azurite")) as running:
        yield running


@pytest.fixture(scope="session")
def blob_proxy(azurite: Azurite) -> Iterator[Proxy]:
    """In front of azurite, to go wrong; `url` with the account's name behind it is the endpoint."""
    with Proxy(azurite.url) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def cosmos(emulators: Installed) -> Iterator[CosmosProxy]:
    """Cosmos DB: `endpoint` and `key` for a client; `fault`, `pause()` and `resume()` to go wrong."""
    with CosmosEmulator(emulators) as emulator, CosmosProxy(emulator.endpoint) as proxy:
        yield proxy
