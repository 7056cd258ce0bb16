"""A batch job with a wrong setting says so in one line, soon, before Ray starts, and writes nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import uuid
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
from azure.cosmos import CosmosClient
from tests.azure.test_blob_images import closed_port, sas, secrets
from tests.faults import Policy, injected

from glint.adapters.blob_account import BlobAccount
from glint.adapters.blob_admin import open_service
from glint.adapters.images import Images
from glint.core.errors import GlintError
from glint.core.manifest import ROW_GROUP_ROWS, Manifest, write_manifest
from glint.emulators.faults import Asked, Fault
from glint.emulators.fidelity import CosmosProxy
from glint.emulators.proxy import Proxy
from glint.emulators.servers import Azurite
from glint.pipelines.access import check_access
from glint.vision.bundle import Bundle

GLINT = str(Path(sys.executable).with_name("glint"))


def manifest_of(path: Path, *uris: str) -> Manifest:
    rows: dict[str, object] = {"uri": list(uris), "etag": [None] * len(uris), "size": [1] * len(uris)}
    table = pa.table(rows | {name: [None] * len(uris) for name in ("labels", "group", "split")})
    return write_manifest(path, [table], source="az://somewhere")


@pytest.fixture(scope="module")
def container(azurite: Azurite) -> str:
    """A container with one picture and an empty blob."""
    name = f"access-{uuid.uuid4().hex[:8]}"
    account = BlobAccount(azurite.account, azurite.endpoint, partial(secrets, account_key=azurite.key))
    client = open_service(account).create_container(name)
    client.upload_blob("a/1.jpg", b"pixels")
    client.upload_blob("a/empty.jpg", b"")
    return name


@pytest.fixture(scope="module")
def store(cosmos: CosmosProxy, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The settings of a result store that is there."""
    settings = {
        "GLINT_STORE": f"cosmos://localhost/access-{uuid.uuid4().hex[:8]}",
        "GLINT_COSMOS_ENDPOINT": cosmos.endpoint,
        "GLINT_COSMOS_KEY": cosmos.key,
    }
    made = glint(settings, tmp_path_factory.mktemp("home"), "store", "init")
    assert made.returncode == 0, made.stderr
    return settings


def glint(environment: dict[str, str], home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("GLINT_", "AZURE_"))}
    return subprocess.run(
        [GLINT, *arguments],
        env=inherited | {"GLINT_HOME": str(home)} | environment,
        check=False,
        text=True,
        capture_output=True,
        timeout=60,
    )


def num_documents(cosmos: CosmosProxy, store: dict[str, str]) -> int:
    with CosmosClient(cosmos.endpoint, cosmos.key) as client:
        database = client.get_database_client(store["GLINT_STORE"].rpartition("/")[2])
        return sum(
            len(list(database.get_container_client(name).read_all_items(max_item_count=10)))
            for name in ("outcomes", "books")
        )


WRONG_KEY = "d3Jvbmdrd3Jvbmdr"


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"GLINT_BLOB_KEY": WRONG_KEY}, "az://access-.* cannot be read: .*check GLINT_BLOB_KEY"),
        ({"GLINT_BLOB_KEY": "", "GLINT_BLOB_SAS": "{expired}"}, "GLINT_BLOB_SAS expired at"),
        ({"GLINT_BLOB_ENDPOINT": "http://127.0.0.1:{closed}/x"}, "GLINT_BLOB_ENDPOINT .*does not answer"),
        ({"GLINT_BLOB_ENDPOINT": "http://127.0.0.1:{deaf}/x"}, "GLINT_BLOB_ENDPOINT .*does not answer .timed out"),
        ({"container": "absent"}, "account devstoreaccount1 has no container absent"),
        ({"GLINT_COSMOS_KEY": WRONG_KEY}, "check GLINT_COSMOS_KEY"),
        ({"GLINT_COSMOS_KEY": WRONG_KEY + "a"}, "GLINT_COSMOS_KEY is not the key of an account"),
        ({"GLINT_STORE": "cosmos://localhost/absent"}, "glint store init makes them"),
        ({"GLINT_COSMOS_ENDPOINT": "http://127.0.0.1:{deaf}"}, "does not answer .* check GLINT_COSMOS_ENDPOINT"),
        ({"GLINT_STORE": "sqlite:////proc/none/results.db"}, "/proc/none"),
    ],
)
def test_a_wrong_setting_is_one_line_within_ten_seconds_and_nothing_is_written(
    wrong: dict[str, str],
    named: str,
    bundle: Bundle,
    azurite: Azurite,
    container: str,
    cosmos: CosmosProxy,
    store: dict[str, str],
    deaf: int,
    tmp_path: Path,
) -> None:
    uri = f"az://{wrong.get('container', container)}/a/1.jpg"
    manifest = manifest_of(tmp_path / "m.parquet", uri)
    places = {"closed": closed_port(), "deaf": deaf, "expired": sas(azurite, container, -1)}
    given = {name: value.format(**places) for name, value in wrong.items() if name.startswith("GLINT_")}
    right = {
        "GLINT_BLOB_ACCOUNT": azurite.account,
        "GLINT_BLOB_ENDPOINT": azurite.endpoint,
        "GLINT_BLOB_KEY": azurite.key,
        **store,
    }
    started = time.monotonic()
    ended = glint(
        right | given, tmp_path, "batch", "run", "--model", str(bundle.directory), "--input", str(manifest.path)
    )
    assert time.monotonic() - started < 10
    assert ended.returncode == 2, ended.stderr
    assert re.search(named, ended.stderr)
    assert len(ended.stderr.splitlines()) == 1
    assert num_documents(cosmos, store) == 0


# Which refusals are the settings' fault


@pytest.fixture
def images(azurite: Azurite, blob_proxy: Proxy) -> Images:
    endpoint = f"{blob_proxy.url}/{azurite.account}"
    return Images(azurite.account, endpoint, partial(secrets, account_key=azurite.key))


def test_one_request_asks_for_each_container_of_a_long_manifest(
    images: Images, container: str, blob_proxy: Proxy, tmp_path: Path, azurite: Azurite
) -> None:
    account = BlobAccount(azurite.account, azurite.endpoint, partial(secrets, account_key=azurite.key))
    open_service(account).create_container(f"{container}-2").upload_blob("x.jpg", b"pixels")
    many = [f"az://{container}/a/1.jpg"] * ROW_GROUP_ROWS
    manifest = manifest_of(tmp_path / "m.parquet", *many, *many, "/local/file.jpg", f"az://{container}-2/x.jpg")
    with injected(blob_proxy, Policy(share=0)) as policy:
        check_access(manifest, images)
    assert policy.asked == {"get": 2}


@pytest.mark.parametrize("name", ["a/1.jpg", "a/empty.jpg", "a/absent.jpg"])
def test_what_is_wrong_with_one_blob_is_left_to_its_outcome(
    images: Images, container: str, blob_proxy: Proxy, name: str
) -> None:
    refused = []

    async def denied(asked: Asked) -> Fault | None:
        if asked.operation != "get":
            return None
        refused.append(asked)
        return Fault.status(403)

    images.check_readable(f"az://{container}/{name}")
    with injected(blob_proxy, denied):
        images.check_readable(f"az://{container}/{name}")
    assert refused, "it was denied, and let pass"


def test_what_is_denied_everywhere_is_the_settings_fault(images: Images, container: str, blob_proxy: Proxy) -> None:
    with (
        injected(blob_proxy, Policy(Fault.status(403), operations={"get", "list"})),
        pytest.raises(GlintError, match=f"az://{container} cannot be read: .*check GLINT_BLOB_KEY"),
    ):
        images.check_readable(f"az://{container}/a/1.jpg")


def test_a_sas_that_may_only_read_is_enough(azurite: Azurite, container: str) -> None:
    only_reading = partial(secrets, sas_key=sas(azurite, container, 1, permission="r"))
    images = Images(azurite.account, azurite.endpoint, only_reading)
    for name in ("a/1.jpg", "a/absent.jpg"):
        images.check_readable(f"az://{container}/{name}")
    with pytest.raises(GlintError, match="cannot be listed"):
        list(images.list(f"az://{container}"))


def test_a_server_that_is_no_blob_storage_is_named(container: str, web_page: str) -> None:
    with pytest.raises(GlintError, match=f"GLINT_BLOB_ENDPOINT {web_page} answers, but not as"):
        Images("plant", web_page, partial(secrets, account_key=WRONG_KEY)).check_readable(f"az://{container}/x.jpg")


def test_a_short_fault_is_no_wrong_setting(images: Images, container: str, blob_proxy: Proxy) -> None:
    with injected(blob_proxy, Policy(Fault.status(503), Fault.reset(), operations={"get"}, limit=1)) as policy:
        images.check_readable(f"az://{container}/a/1.jpg")
    assert policy.asked["get"] == 2, "asked once more"
