import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from glint.core.errors import GlintError
from glint.serving.entra import EntraSettings, EntraTokens
from glint.serving.guard import Access, Bucket, Guard
from glint.serving.held import Held
from glint.serving.keys import add_key, read_keys, remove_key
from glint.serving.problems import ProblemError


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def guarded(access: Access, num_replicas: int = 1) -> TestClient:
    async def answer(request: Request) -> JSONResponse:
        return JSONResponse("in")

    routes = [Route(path, answer, methods=["GET", "POST"]) for path in ("/", "/v1/classify", "/metrics")]
    scopes = {"/metrics": "metrics"}
    return TestClient(Guard(Starlette(routes=routes), access, "classify", scopes, lambda: num_replicas))


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def test_keys_that_are_made_at_once_are_all_kept(tmp_path: Path) -> None:
    names = [f"line-{number}" for number in range(32)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda name: add_key(tmp_path / "keys.json", name, ("classify",)), names))
    assert {key.name for key in read_keys(tmp_path / "keys.json")} == set(names)


def test_a_key_opens_by_either_header(keys: Path) -> None:
    key, client = add_key(keys, "line-4", ("classify",)), guarded(Access(keys))
    assert client.post("/v1/classify", headers=bearer(key)).status_code == 200
    assert client.post("/v1/classify", headers={"x-api-key": key}).status_code == 200


@pytest.mark.parametrize("headers", [{}, bearer("glint_wrong"), bearer(""), {"authorization": "Basic eDp5"}])
def test_without_a_known_key_nothing_opens(keys: Path, headers: dict[str, str]) -> None:
    add_key(keys, "line-4", ("classify",))
    response = guarded(Access(keys)).post("/v1/classify", headers=headers)
    assert (response.status_code, response.json()["reason"]) == (401, "unauthorised")
    assert response.headers["www-authenticate"] == "Bearer"


def test_bodies_that_would_fill_the_memory_are_refused_until_there_is_room(api: FastAPI) -> None:
    held = Held(1500)
    asyncio.run(assert_filled_up_and_emptied(Guard(api, Access(), "classify", held=held), held))


def test_large_bodies_leave_room_for_those_who_take_little() -> None:
    held = Held(8_000_000)
    held.take(6_000_000, 0)
    with pytest.raises(ProblemError, match="fill the memory"):
        held.take(1, 1_000_000)
    held.take(0, 1_000_001)
    held.take(500_000, 500_000)
    held.take(1_000_000, 0)
    with pytest.raises(ProblemError, match="fill the memory"):
        held.take(500_001, 0)
    assert held.num_bytes == 7_500_000


async def assert_filled_up_and_emptied(guard: Guard, held: Held) -> None:
    rest = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield b"x" * 900
        await rest.wait()
        yield b"x"

    async with httpx.AsyncClient(transport=httpx.ASGITransport(guard), base_url="http://glint") as client:
        first = asyncio.create_task(client.post("/v1/classify", content=slowly()))
        while held.num_bytes < 900:
            await asyncio.sleep(0)
        second = await client.post("/v1/classify", content=b"x" * 700)
        assert (second.status_code, second.json()["reason"]) == (503, "overloaded")
        assert second.headers["retry-after"] == "1"
        assert (await client.post("/v1/classify", content=b"x" * 500)).json()["reason"] == "not_an_image"
        rest.set()
        assert (await first).json()["reason"] == "not_an_image"
        assert (await client.post("/v1/classify", content=b"x" * 700)).json()["reason"] == "not_an_image"
    assert held.num_bytes == 0


def test_the_root_and_probes_are_open(keys: Path) -> None:
    assert guarded(Access(keys)).get("/").status_code == 200


def test_a_key_opens_what_its_scopes_name(keys: Path) -> None:
    key, client = add_key(keys, "prometheus", ("metrics",)), guarded(Access(keys))
    assert client.get("/metrics", headers=bearer(key)).status_code == 200
    refused = client.post("/v1/classify", headers=bearer(key))
    assert (refused.status_code, refused.json()["reason"]) == (403, "wrong_scope")
    other = add_key(keys, "line-4", ("classify",))
    for path in ("/metrics", "/metrics%0A"):
        assert client.get(path, headers=bearer(other)).status_code == 403


def test_keys_rotate_while_the_server_runs(keys: Path) -> None:
    old, client = add_key(keys, "old", ("classify",)), guarded(Access(keys))
    assert client.post("/v1/classify", headers=bearer(old)).status_code == 200
    new = add_key(keys, "new", ("classify",))
    remove_key(keys, "old")
    assert client.post("/v1/classify", headers=bearer(old)).status_code == 401
    assert client.post("/v1/classify", headers=bearer(new)).status_code == 200


def test_a_damaged_file_of_keys_leaves_the_server_as_it_was(keys: Path) -> None:
    key, client = add_key(keys, "line-4", ("classify",)), guarded(Access(keys))
    assert client.post("/v1/classify", headers=bearer(key)).status_code == 200
    keys.write_text("{half")
    assert client.post("/v1/classify", headers=bearer(key)).status_code == 200
    with pytest.raises(GlintError, match="is no file of keys"):
        read_keys(keys)


def test_the_file_holds_no_key_and_is_its_owners_alone(keys: Path) -> None:
    key = add_key(keys, "line-4", ("classify",))
    assert key not in keys.read_text()
    assert keys.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("name", "scopes", "message"),
    [("line-4", ("classify",), "is taken"), ("a b", ("classify",), "name:"), ("x", ("everything",), "scopes")],
)
def test_keys_that_cannot_be_made_say_why(keys: Path, name: str, scopes: tuple[str, ...], message: str) -> None:
    add_key(keys, "line-4", ("classify",))
    with pytest.raises(GlintError, match=message):
        add_key(keys, name, scopes)


def test_a_key_above_its_rate_is_told_when_to_come_back(keys: Path) -> None:
    key, client = add_key(keys, "line-4", ("classify",), requests_per_s=0.01), guarded(Access(keys))
    assert client.post("/v1/classify", headers=bearer(key)).status_code == 200
    refused = client.post("/v1/classify", headers=bearer(key))
    assert (refused.status_code, refused.json()["reason"]) == (429, "rate_limit")
    assert 1 <= int(refused.headers["retry-after"]) <= 100


def test_replicas_share_the_rate_of_a_key(keys: Path) -> None:
    key = add_key(keys, "line-4", ("classify",), requests_per_s=4)
    statuses = [
        [client.post("/v1/classify", headers=bearer(key)).status_code for _ in range(3)]
        for client in (guarded(Access(keys), 4), guarded(Access(keys), 1))
    ]
    assert statuses == [[200, 429, 429], [200, 200, 200]]


def test_a_bucket_refills_with_time() -> None:
    bucket = Bucket()
    bucket.take(2, 0)
    bucket.take(2, 0)
    with pytest.raises(ProblemError):
        bucket.take(2, 0.1)
    bucket.take(2, 0.6)


def test_the_access_log_has_a_line_a_request_without_secrets(keys: Path, tmp_path: Path) -> None:
    key, log = add_key(keys, "line-4", ("classify",)), tmp_path / "access.jsonl"
    client = guarded(Access(keys, log=log))
    client.post("/v1/classify?x=secret", headers=bearer(key) | {"x-request-id": "r1"}, content=b"picture")
    client.post("/v1/classify")
    client.get("/metrics", headers=bearer(key))
    first, second, third = (json.loads(line) for line in log.read_text().splitlines())
    assert {"request_id": "r1", "caller": "line-4", "status": 200, "path": "/v1/classify"}.items() <= first.items()
    assert (second["caller"], second["status"]) == (None, 401)
    assert (third["caller"], third["status"]) == ("line-4", 403), "who is refused is known too"
    assert not any(word in log.read_text() for word in (key, "secret", "picture"))


@pytest.fixture(scope="module")
def signer() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture
def answers(signer: rsa.RSAPrivateKey) -> list[Callable[[], bytes]]:
    """What the authority says: the last for ever, what stands before it once each."""
    published = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(signer.public_key())) | {"kid": "1", "use": "sig"}
    return [json.dumps({"keys": [published]}).encode]


@pytest.fixture
def authority(answers: list[Callable[[], bytes]]) -> Iterator[str]:
    """A server that publishes the signer's key as Entra ID would."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/tenant/discovery/v2.0/keys"
            said = (answers.pop(0) if len(answers) > 1 else answers[0])()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def token(authority: str, signer: rsa.RSAPrivateKey, key_id: str = "1", **changes: Any) -> str:
    claims = {
        "iss": f"{authority}/tenant/v2.0",
        "aud": "api://glint",
        "sub": "someone",
        "azp": "an-app",
        "roles": ["classify"],
        "exp": datetime.now(UTC) + timedelta(hours=1),
    }
    return jwt.encode(claims | changes, signer, "RS256", headers={"kid": key_id})


def test_a_token_of_the_tenant_with_the_role_opens(authority: str, signer: rsa.RSAPrivateKey) -> None:
    client = guarded(Access(entra=EntraSettings("tenant", "api://glint", authority)))
    assert client.post("/v1/classify", headers=bearer(token(authority, signer))).status_code == 200
    delegated = token(authority, signer, roles=[], scp="openid classify")
    assert client.post("/v1/classify", headers=bearer(delegated)).status_code == 200


def test_other_tokens_do_not_open(authority: str, signer: rsa.RSAPrivateKey) -> None:
    client = guarded(Access(entra=EntraSettings("tenant", "api://glint", authority)))
    stranger = rsa.generate_private_key(65537, 2048)
    refused = {
        token(authority, signer, roles=[]): 403,
        token(authority, signer, roles=None): 403,
        token(authority, signer, roles=5): 403,
        token(authority, signer, roles=[{"a": 1}]): 403,
        token(authority, signer, aud="api://other"): 401,
        token(authority, signer, iss="https://login.example.com/tenant/v2.0"): 401,
        token(authority, signer, exp=datetime.now(UTC) - timedelta(hours=1)): 401,
        token(authority, stranger): 401,
        "a.b.c": 401,
        jwt.encode({"sub": "x"}, None, "none"): 401,
    }
    for given, status in refused.items():
        assert client.post("/v1/classify", headers=bearer(given)).status_code == status


def test_an_authority_that_does_not_answer_is_no_fault_of_the_callers(signer: rsa.RSAPrivateKey) -> None:
    client = guarded(Access(entra=EntraSettings("tenant", "api://glint", "http://127.0.0.1:1")))
    response = client.post("/v1/classify", headers=bearer(token("http://127.0.0.1:1", signer)))
    assert (response.status_code, response.json()["reason"]) == (503, "identity_unreachable")


@pytest.mark.parametrize("said", [b"<html>", b"{}", b'{"keys": 5}', b'{"keys": [{"kty": "RSA"}]}'])
def test_an_authority_that_publishes_no_keys_is_no_fault_of_the_callers_either(
    authority: str, signer: rsa.RSAPrivateKey, answers: list[Callable[[], bytes]], said: bytes
) -> None:
    answers.insert(0, lambda: said)
    client = guarded(Access(entra=EntraSettings("tenant", "api://glint", authority)))
    for _ in range(2):
        response = client.post("/v1/classify", headers=bearer(token(authority, signer)))
        assert (response.status_code, response.json()["reason"]) == (503, "identity_unreachable")
    assert len(answers) == 1, "asked once, for it is not asked again at once"


def test_tokens_of_known_keys_wait_for_no_others(
    authority: str, signer: rsa.RSAPrivateKey, answers: list[Callable[[], bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glint.serving.entra.PAUSE_S", 0)
    over = threading.Event()

    def slowly() -> bytes:
        over.wait(10)
        return answers[-1]()

    async def ask() -> None:
        tokens = EntraTokens(EntraSettings("tenant", "api://glint", authority))
        assert await tokens.find(token(authority, signer))
        answers.insert(0, slowly)
        unknown = [asyncio.create_task(tokens.find(token(authority, signer, "another"))) for _ in range(20)]
        while len(answers) > 1:
            await asyncio.sleep(0.01)
        assert await tokens.find(token(authority, signer))
        assert not any(task.done() for task in unknown)
        over.set()
        assert set(await asyncio.gather(*unknown)) == {None}

    asyncio.run(ask())


def test_keys_that_are_fetched_outlast_the_caller_that_they_were_fetched_for(
    authority: str, signer: rsa.RSAPrivateKey, answers: list[Callable[[], bytes]]
) -> None:
    over, asked = threading.Event(), threading.Event()

    def slowly() -> bytes:
        asked.set()
        over.wait(10)
        return answers[-1]()

    async def ask() -> None:
        answers.insert(0, slowly)
        tokens = EntraTokens(EntraSettings("tenant", "api://glint", authority))
        first = asyncio.create_task(tokens.find(token(authority, signer)))
        while not asked.is_set():
            await asyncio.sleep(0.01)
        first.cancel()
        second = asyncio.create_task(tokens.find(token(authority, signer)))
        over.set()
        assert await second
        assert first.cancelled()

    asyncio.run(ask())
