"""The result stores that there are: each passes the whole of test_store.py."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from glint.adapters.sqlite_store import SqliteStore
from glint.core.stores import Bridge, ResultStore

# For store_documents, here and in the processes that the tests start.
sys.path.append(str(Path(__file__).parent))


@pytest.fixture
def bridge() -> Iterator[Bridge]:
    bridge = Bridge()
    yield bridge
    bridge.close()


@pytest.fixture(params=["sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path, bridge: Bridge) -> Iterator[ResultStore]:
    """A store that nothing has used yet; other jobs than the test's own may lie in it."""
    stores = {"sqlite": lambda: SqliteStore(tmp_path / "results.db")}
    store = stores[request.param]()
    yield store
    bridge.run(store.close())
