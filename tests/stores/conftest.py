"""The result stores that there are: each passes the whole of test_store.py."""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from glint.adapters.cosmos_client import CosmosAddress, parse_address
from glint.adapters.cosmos_setup import create_schema
from glint.adapters.cosmos_store import CosmosStore
from glint.adapters.sqlite_store import SqliteStore
from glint.core.stores import Bridge, ResultStore
from glint.emulators.fidelity import CosmosProxy

# For store_documents, here and in the processes that the tests start.
sys.path.append(str(Path(__file__).parent))

from store_documents import account_key, emulator_key


@pytest.fixture
def bridge() -> Iterator[Bridge]:
    bridge = Bridge()
    yield bridge
    bridge.close()


@pytest.fixture(scope="session")
def emulated(cosmos: CosmosProxy) -> Iterator[CosmosAddress]:
    """A database of the emulator with the containers in it."""
    os.environ["GLINT_TEST_EMULATOR_KEY"] = cosmos.key
    address = CosmosAddress("localhost", f"glint-{uuid.uuid4().hex[:8]}", cosmos.endpoint, emulator_key)
    asyncio.run(create_schema(address, 4000))
    yield address
    del os.environ["GLINT_TEST_EMULATOR_KEY"]


@pytest.fixture(scope="session")
def real() -> CosmosAddress:
    """The database of a real account that GLINT_TEST_COSMOS names, made by `glint store init` beforehand."""
    uri = os.environ.get("GLINT_TEST_COSMOS")
    if not uri:
        pytest.skip(
            "needs a real account: GLINT_TEST_COSMOS=cosmos://ACCOUNT/DATABASE, GLINT_COSMOS_KEY or Entra ID, and "
            "GLINT_COSMOS_ENDPOINT in another cloud"
        )
    return CosmosAddress(*parse_address(uri), os.environ.get("GLINT_COSMOS_ENDPOINT"), account_key)


@pytest.fixture(params=["sqlite", "emulator", "account"])
def store(request: pytest.FixtureRequest, tmp_path: Path, bridge: Bridge) -> Iterator[ResultStore]:
    """A store that this test has not used yet; other jobs than the test's own may lie in it."""
    stores: dict[str, Callable[[], ResultStore]] = {
        "sqlite": lambda: SqliteStore(tmp_path / "results.db"),
        "emulator": lambda: CosmosStore(request.getfixturevalue("emulated"), tmp_path),
        "account": lambda: CosmosStore(request.getfixturevalue("real"), tmp_path),
    }
    store = stores[request.param]()
    yield store
    bridge.run(store.close())
