"""Each wrong setting of Cosmos DB gets one line that names it, exit code 2, and soon; secrets stay where they are."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import re
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from azure.cosmos import CosmosClient
from azure.cosmos.exceptions import CosmosHttpResponseError
from tests.faults import injected
from tests.stores.store_documents import chunk_of, job

from glint.adapters.cosmos_client import CosmosAddress, explain, parse_address, reason
from glint.adapters.cosmos_setup import _refused, create_schema
from glint.adapters.dead_letters import keep
from glint.adapters.sqlite_store import SqliteStore
from glint.core.errors import GlintError
from glint.core.stores import Bridge
from glint.emulators.faults import Asked, Fault
from glint.emulators.fidelity import CosmosProxy
from glint.settings import Settings
from glint.wiring import open_store

GLINT = str(Path(sys.executable).with_name("glint"))


def glint(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("GLINT_", "AZURE_"))}
    return subprocess.run(
        [GLINT, *arguments], env=inherited | environment, check=False, text=True, capture_output=True, timeout=60
    )


@pytest.fixture(scope="module")
def environment(cosmos: CosmosProxy, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The settings of a database that `glint store init` has made."""
    settings = {
        "GLINT_HOME": str(tmp_path_factory.mktemp("home")),
        "GLINT_STORE": f"cosmos://localhost/settings-{uuid.uuid4().hex[:8]}",
        "GLINT_COSMOS_ENDPOINT": cosmos.endpoint,
        "GLINT_COSMOS_KEY": cosmos.key,
    }
    made = glint(settings, "store", "init", "--json")
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout) == {"store": settings["GLINT_STORE"], "containers": ["outcomes", "books"]}
    return settings


def test_the_database_is_made_with_what_the_queries_need_and_no_more(
    environment: dict[str, str], cosmos: CosmosProxy
) -> None:
    with CosmosClient(cosmos.endpoint, cosmos.key) as client:
        database = client.get_database_client(environment["GLINT_STORE"].rpartition("/")[2])
        made: dict[str, Any] = {each["id"]: each for each in database.list_containers()}
    assert set(made) == {"outcomes", "books"}
    for container in made.values():
        assert container["partitionKey"]["paths"] == ["/pk"]
        assert container["defaultTtl"] == -1
        assert {"path": "/*"} in container["indexingPolicy"]["excludedPaths"]
    indexed = {each["path"] for each in made["outcomes"]["indexingPolicy"]["includedPaths"]}
    assert indexed == {f"/{name}/?" for name in ("pk", "kind", "status", "label", "decision", "confidence", "chunk")}


def test_making_it_again_changes_nothing(environment: dict[str, str]) -> None:
    again = glint(environment, "store", "init")
    assert again.returncode == 0, again.stderr
    assert "outcomes, books" in again.stdout


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"GLINT_COSMOS_KEY": "d3Jvbmc="}, "check GLINT_COSMOS_KEY"),
        ({"GLINT_COSMOS_KEY": "d3Jvbmdd3"}, "GLINT_COSMOS_KEY is not the key of an account: it is not base64"),
        ({"GLINT_COSMOS_KEY": "schlüssel"}, "GLINT_COSMOS_KEY is not the key of an account: it is not base64"),
        ({"GLINT_COSMOS_KEY": ""}, "is not https, where an identity could sign in: set GLINT_COSMOS_KEY"),
        ({"GLINT_COSMOS_ENDPOINT": "localhost:8081"}, "GLINT_COSMOS_ENDPOINT 'localhost:8081' must be https://HOST"),
        (
            {"GLINT_COSMOS_ENDPOINT": "AccountEndpoint=https://a.b:443/;AccountKey=c2VjcmV0"},
            "GLINT_COSMOS_ENDPOINT 'AccountEndpoint=https://a.b:443/' must be https://HOST",
        ),
        ({"GLINT_STORE": "cosmos://localhost/absent"}, "cosmos://localhost/absent: .* glint store init makes them"),
        ({"GLINT_COSMOS_ENDPOINT": "http://127.0.0.1:1"}, "check GLINT_COSMOS_ENDPOINT"),
        ({"GLINT_COSMOS_ENDPOINT": "https://account.invalid:443"}, "check GLINT_COSMOS_ENDPOINT"),
        ({"GLINT_STORE": "cosmos://localhost"}, "must be cosmos://ACCOUNT/DATABASE"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line_within_ten_seconds(
    environment: dict[str, str], wrong: dict[str, str], named: str
) -> None:
    started = time.monotonic()
    ended = glint(environment | wrong, "batch", "results", "any")
    assert time.monotonic() - started < 10
    assert ended.returncode == 2
    assert re.search(named, ended.stderr)
    assert len(ended.stderr.splitlines()) == 1
    assert environment["GLINT_COSMOS_KEY"] not in ended.stderr + ended.stdout


@pytest.mark.parametrize(("status", "body"), [(400, b""), (404, b""), (302, b""), (200, b"<html>")])
def test_what_is_no_cosmos_db_is_told_from_one(status: int, body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLINT_COSMOS_KEY", "c2VjcmV0")
    with answering(status, body) as endpoint:
        store = open_store(Settings(store="cosmos://localhost/any", cosmos_endpoint=endpoint))
        bridge = Bridge()
        try:
            with pytest.raises(GlintError, match="check GLINT_COSMOS_ENDPOINT"):
                bridge.run(store.get_job("any"))
        finally:
            bridge.run(store.close())
            bridge.close()


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """A web server that says the same to everything."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("arguments", "wrong", "named"),
    [
        ([], {"GLINT_COSMOS_KEY": "d3Jvbmdd3"}, "GLINT_COSMOS_KEY is not the key of an account"),
        ([], {"GLINT_COSMOS_KEY": "d3Jvbmc="}, "check GLINT_COSMOS_KEY"),
        (["--max-ru", "500"], {}, "--max-ru 500 must be 1000 or more, in steps of 1000, with autoscale"),
        (["--max-ru", "4500"], {}, "--max-ru 4500 must be 1000 or more, in steps of 1000, with autoscale"),
        (["--max-ru", "350", "--no-autoscale"], {}, "--max-ru 350 must be 400 or more, in steps of 100"),
    ],
)
def test_what_store_init_cannot_do_is_one_line(
    environment: dict[str, str], arguments: list[str], wrong: dict[str, str], named: str
) -> None:
    ended = glint(environment | {"GLINT_STORE": "cosmos://localhost/never"} | wrong, "store", "init", *arguments)
    assert ended.returncode == 2
    assert named in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr


async def refuse_making(asked: Asked) -> Fault | None:
    """400 for what is to be made, while everything else passes."""
    return Fault.status(400) if asked.method == "POST" and asked.operation == "metadata" else None


def test_what_the_account_refuses_to_make_is_one_line_that_names_the_options(
    environment: dict[str, str], cosmos: CosmosProxy
) -> None:
    with injected(cosmos, refuse_making):
        address = CosmosAddress("localhost", "refused", cosmos.endpoint, partial(str, cosmos.key))
        with pytest.raises(GlintError, match=r"refuses what --max-ru 4000 asks for .*--serverless"):
            asyncio.run(create_schema(address, 4000))


SERVERLESS = (
    '{"code":"BadRequest","message":"Setting offer throughput or autopilot on container is not supported for '
    'serverless accounts.\\r\\nActivityId: 1-2, Microsoft.Azure.Documents.Common/2.14.0"}'
)
TOO_LITTLE = (
    '{"code":"BadRequest","message":"Message: {\\"Errors\\":[\\"The offer should have valid throughput values between '
    '1000 and 1000000 inclusive in increments of 1000.\\"]}\\r\\nActivityId: 1-2, Request URI: /apps/x"}'
)
NO_IDENTITY = (
    '{"code":"Forbidden","message":"Request blocked by Auth plant : The given request [POST /dbs] cannot be authorized '
    'by AAD token in data plane. Learn more: https://aka.ms/cosmos-native-rbac.\\r\\nActivityId: 1-2"}'
)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            SERVERLESS,
            "Setting offer throughput or autopilot on container is not supported for serverless accounts.",
        ),
        (
            TOO_LITTLE,
            "The offer should have valid throughput values between 1000 and 1000000 inclusive in increments of 1000.",
        ),
        (
            NO_IDENTITY,
            "Request blocked by Auth plant : The given request [POST /dbs] cannot be authorized by AAD token in data "
            "plane.",
        ),
        ("<html>\nnot JSON</html>", "<html> not JSON</html>"),
        ("", "status 400"),
    ],
)
def test_the_service_is_quoted_without_what_it_says_for_its_own_people(body: str, said: str) -> None:
    assert reason(CosmosHttpResponseError(status_code=400, message=body)) == said


def test_a_role_on_the_data_is_never_said_to_make_databases() -> None:
    """What covers reading and writing items covers no management: docs/store.md."""
    error = CosmosHttpResponseError(status_code=403, message=NO_IDENTITY)
    identity = CosmosAddress("plant", "glint", None, no_key)
    making = _refused(error, identity, 4000, autoscale=True)
    assert making
    assert "Data Contributor" not in making
    assert "set GLINT_COSMOS_KEY, or have somebody with the role Cosmos DB Operator" in making
    using = str(explain(error, identity))
    assert "give it the role Cosmos DB Built-in Data Contributor" in using
    assert "firewall" in str(explain(error, replace(identity, key=partial(str, "a2V5"))))


def no_key() -> None:
    """Entra ID."""


def test_an_address_without_a_database_is_refused() -> None:
    for uri in ("cosmos://", "cosmos://account", "cosmos:///database", "cosmos://account/a?b", "sqlite:///x"):
        with pytest.raises(GlintError, match="must be cosmos://ACCOUNT/DATABASE"):
            parse_address(uri)


def test_a_store_travels_without_its_key(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    travelling = pickle.dumps(open_store(Settings()))
    assert environment["GLINT_COSMOS_KEY"].encode() not in travelling


def test_kept_chunks_are_written_by_replay(tmp_path: Path) -> None:
    home = tmp_path / "home"
    file = keep(home / "dead-letters", *chunk_of("j1", 0))
    assert keep(home / "dead-letters", *chunk_of("j1", 1)) == file
    done = glint({"GLINT_HOME": str(home)}, "store", "replay", str(file), "--json")
    assert json.loads(done.stdout) == {"file": str(file), "chunks": 2, "images": 10}
    store, bridge = SqliteStore(home / "results.db"), Bridge()
    bridge.run(store.put_job(job("j1")))
    assert len(bridge.run(store.page("j1")).outcomes) == 10
    bridge.run(store.close())
    bridge.close()


@pytest.mark.parametrize("content", ["", "not json\n", "{}\n", None])
def test_a_file_without_kept_chunks_is_refused(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "any.jsonl"
    if content is not None:
        file.write_text(content)
    done = glint({"GLINT_HOME": str(tmp_path)}, "store", "replay", str(file))
    assert done.returncode == 2
    assert str(file) in done.stderr
