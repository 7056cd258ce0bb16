"""Images in a real blob server: listed, read, and every refusal in one line that names the setting."""

import contextlib
import pickle
import socket
import time
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from azure.storage.blob import ContainerClient, generate_container_sas

from glint.adapters.blob_account import BlobAccount
from glint.adapters.blob_admin import open_service
from glint.adapters.images import Images
from glint.core.errors import GlintError, ImageError

NAMES = ["a b.jpg", "ü#?&+.jpg", "100%.JPG", "x%2F.jpg", "日本/q😀.webp", "deep/er/x.png", "[x]'.tiff"]


def secrets(**found: str) -> dict[str, str]:
    """What `credentials` returns; as a partial it travels, like a function of a module."""
    return found


def images(azurite, **more) -> Images:
    return Images(azurite.account, azurite.endpoint, partial(secrets, account_key=azurite.key), **more)


def container(azurite, name: str) -> ContainerClient:
    account = BlobAccount(azurite.account, azurite.endpoint, partial(secrets, account_key=azurite.key))
    return open_service(account).create_container(name)


def sas(azurite, name: str, hours: float, permission: str = "rl") -> str:
    now = datetime.now(UTC)
    return generate_container_sas(
        azurite.account,
        name,
        account_key=azurite.key,
        permission=permission,
        start=now - timedelta(days=3),
        expiry=now + timedelta(hours=hours),
    )


@pytest.fixture(scope="module")
def pics(azurite) -> ContainerClient:
    client = container(azurite, "pics")
    for name in NAMES:
        client.upload_blob(f"line 4/{name}", name.encode())
    client.upload_blob("line 4/readme.md", b"text")
    client.upload_blob("line 45/x.jpg", b"of another line")
    return client


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_any_name_is_listed_and_read_again(azurite, pics):
    reader = images(azurite)
    listed = {entry.path: entry for entry in reader.list("az://pics/line 4")}
    assert {path for path, entry in listed.items() if not entry.ignored} == set(NAMES)
    assert listed["readme.md"].ignored == "not an image name"
    for name in NAMES:
        entry = listed[name]
        assert (entry.uri, entry.size) == (f"az://pics/line 4/{name}", len(name.encode()))
        assert reader.read(entry.uri, entry.etag) == name.encode()


def test_the_whole_container_is_a_source_too(azurite, pics):
    assert {entry.path for entry in images(azurite).list("az://pics")} >= {"line 45/x.jpg", "line 4/readme.md"}
    assert list(images(azurite).list("az://pics/nowhere")) == []


def test_a_name_that_cannot_be_read_is_listed_with_the_reason_and_stops_no_other(azurite):
    client = container(azurite, "odd")
    for name in ("a.jpg", "b//twice.jpg", "c\ttab.jpg", "d.jpg", "e/f.jpg"):
        client.upload_blob(name, b"pixels")
    listed = [(entry.path, entry.ignored) for entry in images(azurite).list("az://odd")]
    unreadable = "name with empty parts or control characters"
    assert listed == [
        ("a.jpg", None),
        ("b//twice.jpg", unreadable),
        ("c\ttab.jpg", unreadable),
        ("d.jpg", None),
        ("e/f.jpg", None),
    ]
    with pytest.raises(ImageError, match="empty parts") as caught:
        images(azurite).read("az://odd/b//twice.jpg")
    assert caught.value.status == "failed"


def test_a_sas_lists_and_reads_with_or_without_its_question_mark(azurite, pics):
    for token in (sas(azurite, "pics", 1), "?" + sas(azurite, "pics", 1) + "\n"):
        reader = Images(azurite.account, azurite.endpoint, partial(secrets, sas_key=token))
        entry = next(entry for entry in reader.list("az://pics/line 4") if not entry.ignored)
        assert reader.read(entry.uri, entry.etag)


def test_azure_variables_that_are_meant_for_something_else_change_nothing(azurite, pics, monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "AAAA")
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", "sig=x")
    monkeypatch.setenv("AZURE_STORAGE_USE_EMULATOR", "true")
    monkeypatch.setenv("AZURE_SKIP_SIGNATURE", "true")
    token = partial(secrets, sas_key=sas(azurite, "pics", 1))
    for reader in (images(azurite), Images(azurite.account, azurite.endpoint, token)):
        assert reader.read("az://pics/line 4/a b.jpg") == b"a b.jpg"


def test_missing_denied_changed_and_failed_are_told_apart(azurite, pics):
    reader = images(azurite)
    (entry,) = reader.list("az://pics/line 45")
    pics.upload_blob("line 45/x.jpg", b"other pixels", overwrite=True)
    wrong = Images(azurite.account, azurite.endpoint, partial(secrets, account_key="a2V5"))
    expired = Images(azurite.account, azurite.endpoint, partial(secrets, sas_key=sas(azurite, "pics", -1)))
    cases = [
        (reader, "az://pics/line 4/absent.jpg", None, "missing"),
        (reader, "az://absent/x.jpg", None, "missing"),
        (reader, entry.uri, entry.etag, "changed"),
        (wrong, entry.uri, None, "denied"),
        (expired, entry.uri, None, "denied"),
    ]
    for images_, uri, etag, status in cases:
        with pytest.raises(ImageError) as caught:
            images_.read(uri, etag)
        assert caught.value.status == status
        assert "sig=" not in str(caught.value)
        assert "\n" not in str(caught.value)


def account(azurite, **changed) -> Images:
    known = {"account": azurite.account, "endpoint": azurite.endpoint, "key": azurite.key, "sas": ""} | changed
    found = {"sas_key": known["sas"]} if known["sas"] else {"account_key": known["key"]}
    return Images(known["account"], known["endpoint"], partial(secrets, **found))


@pytest.mark.parametrize(
    ("changed", "source", "complaint"),
    [
        ({"key": "a2V5"}, "az://pics/x", "refuses it; check GLINT_BLOB_KEY"),
        ({"key": "not base 64!"}, "az://pics/x", "GLINT_BLOB_KEY is not the key of an account"),
        ({"key": "nö"}, "az://pics/x", "GLINT_BLOB_KEY is not the key of an account"),
        ({"sas": "expired"}, "az://pics/x", "GLINT_BLOB_SAS expired at 20"),
        ({"sas": "other container"}, "az://pics/x", "check that GLINT_BLOB_SAS is of this account and container"),
        ({"sas": "garbage"}, "az://pics/x", "GLINT_BLOB_SAS is not a shared access signature"),
        ({}, "az://absent/x", "account devstoreaccount1 has no container absent"),
        ({}, "az://No_name/x", "No_name is no name of a container: 3 to 63"),
        ({"account": "other", "endpoint": "http://{host}/other"}, "az://pics/x", "GLINT_BLOB_ACCOUNT other does not"),
        (
            {"endpoint": "http://127.0.0.1:{closed}/x"},
            "az://pics/x",
            "GLINT_BLOB_ENDPOINT .* does not answer .*refused",
        ),
        ({"endpoint": "https://glint.invalid"}, "az://pics/x", "GLINT_BLOB_ENDPOINT .* does not answer .no such host"),
        ({"account": "glintnosuch", "endpoint": None}, "az://pics/x", "GLINT_BLOB_ACCOUNT glintnosuch: .* does not"),
        ({"account": "no such", "endpoint": None}, "az://pics/x", "GLINT_BLOB_ACCOUNT 'no such' must be"),
        ({"endpoint": "localhost:10000"}, "az://pics/x", "GLINT_BLOB_ENDPOINT 'localhost:10000' must be https://HOST"),
        ({"endpoint": "https://h:99999999"}, "az://pics/x", "GLINT_BLOB_ENDPOINT .* must be https://HOST"),
    ],
)
def test_what_is_wrong_with_the_account_is_one_line_naming_the_setting(azurite, pics, changed, source, complaint):
    signatures = {"expired": sas(azurite, "pics", -1), "other container": sas(azurite, "others", 1)}
    host = azurite.url.removeprefix("http://")
    if changed.get("endpoint"):
        changed = changed | {"endpoint": changed["endpoint"].format(host=host, closed=closed_port())}
    changed = changed | ({"sas": signatures.get(changed["sas"], changed["sas"])} if "sas" in changed else {})
    begun = time.monotonic()
    with pytest.raises(GlintError, match=complaint) as caught:
        list(account(azurite, **changed).list(source))
    assert time.monotonic() - begun < 10
    assert "\n" not in str(caught.value)
    for secret in ("sp=", azurite.key, "not base 64", "a2V5"):
        assert secret not in str(caught.value)


def test_a_server_that_is_no_blob_storage_is_named(azurite, web_page):
    with pytest.raises(GlintError, match=f"GLINT_BLOB_ENDPOINT {web_page} answers, but not as"):
        list(account(azurite, endpoint=web_page).list("az://pics/x"))


def test_a_place_that_swallows_connections_is_given_up_soon(azurite):
    with socket.socket() as deaf, contextlib.ExitStack() as waiting:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for _ in range(3):  # its queue is full, and whoever comes next waits for ever
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(deaf.getsockname())
        begun = time.monotonic()
        with pytest.raises(GlintError, match=r"GLINT_BLOB_ENDPOINT .* does not answer .timed out"):
            list(account(azurite, endpoint=f"http://127.0.0.1:{deaf.getsockname()[1]}/x").list("az://pics/x"))
        assert time.monotonic() - begun < 9


def test_a_server_that_takes_connections_and_never_answers_is_given_up_soon(azurite, deaf):
    begun = time.monotonic()
    with pytest.raises(GlintError, match=r"GLINT_BLOB_ENDPOINT .* does not answer"):
        list(account(azurite, endpoint=f"http://127.0.0.1:{deaf}/x").list("az://pics/x"))
    assert time.monotonic() - begun < 9


def test_an_account_that_does_not_answer_fails_the_image_alone(azurite, monkeypatch):
    monkeypatch.setattr("glint.adapters.blobs.READ_RETRIES", {"max_retries": 1})
    reader = account(azurite, endpoint=f"http://127.0.0.1:{closed_port()}/devstoreaccount1")
    (read,) = reader.read_many(["az://pics/x.jpg"], [None])
    assert isinstance(read, ImageError)
    assert read.status == "failed"


def test_no_secret_travels(azurite, pics):
    reader = Images(azurite.account, azurite.endpoint, stored_key)
    assert reader.read("az://pics/line 4/a b.jpg")
    sent = pickle.dumps(reader)
    assert azurite.key.encode() not in sent
    assert b"AzureStore" not in sent
    assert pickle.loads(sent).read("az://pics/line 4/a b.jpg")  # noqa: S301  our own


def stored_key() -> dict[str, str]:
    from glint.emulators.servers import ACCOUNT_KEY

    return {"account_key": ACCOUNT_KEY}
