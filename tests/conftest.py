"""Fixtures that any test may ask for."""

from pathlib import Path

import hypothesis
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

# A busy machine must not fail a property by its pace.
hypothesis.settings.register_profile("glint", deadline=None)
hypothesis.settings.load_profile("glint")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real inspection data beside the repository, which a clone does not have."""
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs the real inspection data in ../shared, which a clone does not have")
    return folder
