"""What the tests of verbs that name registered models share."""

from itertools import count

import pytest
from tests.colours import register

from glint.adapters.registry import Registry
from glint.settings import Settings
from glint.vision.bundle import Bundle
from glint.wiring import open_registry

NUMBERS = count(1)


@pytest.fixture
def registry(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """The registry of the tests' home, which the verbs find too."""
    monkeypatch.setenv("GLINT_HOME", str(settings.home))
    return open_registry(settings)


@pytest.fixture
def name(sighted: Bundle, blind: Bundle, registry: Registry) -> str:
    """A registered model of its own: version 1 sees all colours, version 2 is blind to red."""
    name = f"contest-{next(NUMBERS)}"
    assert [register(registry, name, bundle) for bundle in (sighted, blind)] == ["1", "2"]
    return name
