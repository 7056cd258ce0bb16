import asyncio
import io
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.colours import register

from glint.adapters.registry import Registry
from glint.core.errors import GlintError
from glint.serving.classifier import Classifier
from glint.serving.metrics import Metrics
from glint.serving.models import Models
from glint.serving.problems import ProblemError
from glint.serving.sources import Found
from glint.settings import Settings
from glint.vision.bundle import Bundle
from glint.wiring import open_registry, serving_sources


@pytest.fixture
def registry(settings: Settings) -> Registry:
    return open_registry(settings)


@pytest.fixture
def name(registry: Registry, sighted: Bundle, blind: Bundle, request: pytest.FixtureRequest) -> str:
    """A registered model of its own; version 1 is the champion, and sees red as version 2 does not."""
    name = request.node.name.replace("_", "-")
    assert [register(registry, name, bundle) for bundle in (sighted, blind)] == ["1", "2"]
    registry.promote(name, "1", "champion")
    return name


class Memory:
    """What RaysMemory keeps outside of the replicas, kept here."""

    def __init__(self) -> None:
        self._kept: dict[str, bytes] = {}

    def get(self, alias: str, /) -> Found | None:
        return pickle.loads(self._kept[alias]) if alias in self._kept else None  # noqa: S301 - our own

    def __setitem__(self, alias: str, found: Found, /) -> None:
        self._kept[alias] = pickle.dumps(found)


@pytest.fixture(scope="session")
def wrong(sighted: Bundle, blind: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle that does not see what its self-test says."""
    directory = tmp_path_factory.mktemp("wrong") / "artifacts" / "bundle"
    shutil.copytree(sighted.directory, directory)
    shutil.copy(blind.directory / "weights.safetensors", directory)
    return Bundle(directory)


def serving(name: str, settings: Settings, memory: Memory | None = None, challenged: bool = False) -> Models:
    challengers = [f"models:/{name}@challenger"] if challenged else []
    canary = 1.0 if challenged else 0.0
    sources = serving_sources([f"models:/{name}@champion"], settings, challengers, canary=canary)
    return Models(sources, Classifier(num_threads=1, max_wait_s=60), Metrics(), memory)


def red() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(file, "PNG")
    return file.getvalue()


def version(models: Models) -> str | None:
    return models.describe(None)[0].version


def test_a_model_follows_its_alias(name: str, registry: Registry, settings: Settings) -> None:
    models = serving(name, settings)
    models.follow()
    assert version(models) == "1"
    registry.promote(name, "2", "champion")
    models.follow()
    assert version(models) == "2"
    assert (
        f'glint_model_swaps_total{{model="{name}",result="swapped",role="champion"}} 1.0' in models.metrics().decode()
    )


def test_requests_during_a_swap_are_all_answered(name: str, registry: Registry, settings: Settings) -> None:
    models = serving(name, settings)

    async def ask() -> set[str | None]:
        asked = [asyncio.create_task(models.classify(None, red(), 1)) for _ in range(20)]
        registry.promote(name, "2", "champion")
        await asyncio.to_thread(models.follow)
        asked += [asyncio.create_task(models.classify(None, red(), 1)) for _ in range(20)]
        return {model.version for _, model, _ in await asyncio.gather(*asked)}

    assert asyncio.run(ask()) == {"1", "2"}


def test_a_version_that_was_swapped_away_ends_what_it_was_named_for(
    name: str, registry: Registry, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = serving(name, settings)
    registry.promote(name, "2", "champion")
    models.follow()
    (_, before, _), (_, now, _) = (asyncio.run(models.classify(f"{name}/{at}", red(), 1)) for at in (1, 2))
    assert (before.version, now.version) == ("1", "2")
    asked: list[Any] = []

    async def remember(work: Any, *_: Any, **__: Any) -> None:
        asked.append(work)

    monkeypatch.setattr(models._classifier, "run", remember)
    for ref in (before, now):
        asyncio.run(models.explain(name, ref, red(), "red"))
    live = models._live[name]
    assert live.before
    assert asked == [live.before.explanations.explain, live.current.explanations.explain]
    assert f"{name}/1" not in models.names
    monkeypatch.setattr("glint.serving.live.KEPT_S", 0)
    models.follow()
    with pytest.raises(ProblemError, match="is not served"):
        models.describe(f"{name}/1")


def test_a_folder_is_found_from_anywhere(
    sighted: Bundle, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(sighted.directory.parent)
    (source,) = serving_sources([sighted.directory.name], settings)
    monkeypatch.chdir(tmp_path)
    assert source.find().open().model.bundle == sighted.digest


def test_a_version_that_fails_its_selftest_never_takes_over(
    name: str, registry: Registry, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = serving(name, settings)

    def refuse(found: Found) -> None:
        raise GlintError(f"model {found.identity} fails its self-test: probabilities differ")

    monkeypatch.setattr("glint.serving.live._load", refuse)
    registry.promote(name, "2", "champion")
    models.follow()
    models.follow()
    assert version(models) == "1"
    refused = f'glint_model_swaps_total{{model="{name}",result="refused",role="champion"}}'
    assert f"{refused} 1.0" in models.metrics().decode()
    monkeypatch.setattr("glint.serving.live.RETRY_S", 0)
    models.follow()
    assert f"{refused} 2.0" in models.metrics().decode(), "once more after a while: the machine may have been at fault"


def test_a_version_that_cannot_be_opened_is_refused_once(
    name: str, registry: Registry, settings: Settings, sighted: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = tmp_path / "artifacts" / "bundle"
    shutil.copytree(sighted.directory, damaged)
    (damaged / "weights.safetensors").write_bytes((sighted.directory / "weights.safetensors").read_bytes()[:-100])
    memory = Memory()
    models = serving(name, settings, memory)
    registry.promote(name, register(registry, name, Bundle(damaged)), "champion")
    for _ in range(2):
        models.follow()
    assert version(models) == version(serving(name, settings, memory)) == "1"
    assert caplog.text.count("cannot be served") == 2, "by either of the two, once"


def test_a_new_replica_serves_the_last_good_version_while_the_alias_means_a_refused_one(
    name: str, registry: Registry, settings: Settings, wrong: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    memory = Memory()
    before = serving(name, settings, memory)
    registry.promote(name, "2", "champion")
    before.follow()
    registry.promote(name, register(registry, name, wrong), "champion")
    before.follow()
    models = serving(name, settings, memory)
    assert version(models) == version(before) == asyncio.run(models.classify(None, red(), 1))[1].version == "2"
    assert f"{name} stays at models:/{name}/2" in caplog.text
    models.follow()
    refused = f'glint_model_swaps_total{{model="{name}",result="refused",role="champion"}} 1.0'
    assert refused in models.metrics().decode(), "and it does not try again"
    registry.promote(name, "1", "champion")
    models.follow()
    assert version(models) == "1"


def test_a_refused_model_of_which_nothing_better_is_known_is_told(
    name: str, registry: Registry, settings: Settings, wrong: Bundle
) -> None:
    registry.promote(name, register(registry, name, wrong), "champion")
    with pytest.raises(GlintError, match="fails its self-test"):
        serving(name, settings, Memory())


def test_a_refused_challenger_leaves_its_champion_alone_until_it_is_another(
    name: str, registry: Registry, settings: Settings, wrong: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    registry.promote(name, register(registry, name, wrong), "challenger")
    models = serving(name, settings, challenged=True)
    assert asyncio.run(models.classify(None, red(), 1))[1].version == "1"
    assert "the champion is alone" in caplog.text
    models.follow()
    registry.promote(name, "2", "champion")
    models.follow()
    assert asyncio.run(models.classify(None, red(), 1))[1].version == "2"
    assert models.names == (name, f"{name}@champion", f"{name}/2")
    refused = f'glint_model_swaps_total{{model="{name}",result="refused",role="challenger"}} 1.0'
    assert refused in models.metrics().decode()
    registry.promote(name, "1", "challenger")
    models.follow()
    assert asyncio.run(models.classify(None, red(), 1))[1].version == "1"


def test_a_registry_that_is_away_changes_nothing(
    name: str, settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    models = serving(name, settings)

    def away(*_: object) -> None:
        raise ConnectionError("no route")

    told = f"{name}: the alias of its champion cannot be followed: no route"
    for times in (1, 2):
        with monkeypatch.context() as gone:
            gone.setattr("glint.wiring.online.open_model", away)
            for _ in range(2):
                models.follow()
        models.follow()
        assert [record.getMessage() for record in caplog.records] == [told] * times, "once each time that it went away"
    assert version(models) == "1"
    failed = f'glint_model_swaps_total{{model="{name}",result="failed",role="champion"}} 4.0'
    assert failed in models.metrics().decode()


def test_two_models_of_one_name_are_refused(name: str, settings: Settings) -> None:
    with pytest.raises(GlintError, match=f"second of the name {name}"):
        serving_sources([f"models:/{name}/1", f"models:/{name}/2"], settings)


def test_a_challenger_follows_its_own_alias_and_is_tried_anew(
    name: str, registry: Registry, settings: Settings
) -> None:
    registry.promote(name, "2", "challenger")
    sources = serving_sources([f"models:/{name}@champion"], settings, [f"models:/{name}@challenger"], canary=1.0)
    models = Models(sources, Classifier(num_threads=1, max_wait_s=60), Metrics())
    assert models.names == (name, f"{name}@champion", f"{name}/1", f"{name}@challenger", f"{name}/2")
    assert asyncio.run(models.classify(None, red(), 1))[1].version == "2"
    registry.promote(name, "1", "challenger")
    models.follow()
    assert asyncio.run(models.classify(None, red(), 1))[1].version == "1"
    swapped = f'glint_model_swaps_total{{model="{name}",result="swapped",role="challenger"}} 1.0'
    assert swapped in models.metrics().decode()
