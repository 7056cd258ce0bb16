"""Folders uploaded to a real blob server: once, whatever happens on the way."""

import hashlib
import os
import time
from functools import partial
from pathlib import Path

import pytest
from tests.azure.test_blob_images import closed_port, sas, secrets
from tests.faults import Policy, injected

from glint.adapters.blob_account import BlobAccount
from glint.adapters.blob_admin import open_service
from glint.adapters.blob_upload import upload
from glint.adapters.images import Images
from glint.core.errors import GlintError
from glint.emulators.faults import Fault


@pytest.fixture
def account(azurite) -> BlobAccount:
    return BlobAccount(azurite.account, azurite.endpoint, partial(secrets, account_key=azurite.key))


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in ("good/a b.jpg", "good/ü#1.png", "bad/x.webp", "labels.csv", ".git/config", ".DS_Store"):
        path = tmp_path / "boards" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"content of {name}".encode())
    os.mkfifo(tmp_path / "boards" / "pipe.txt")
    (tmp_path / "boards" / "broken.jpg").symlink_to("nowhere")
    (tmp_path / "boards" / "tab\t.jpg").write_bytes(b"pixels")
    with open(os.fsencode(tmp_path / "boards") + b"/bad\xff.jpg", "wb") as file:  # noqa: PTH123  Path has no bytes
        file.write(b"pixels")
    return tmp_path / "boards"


NAMES = {"good/a b.jpg", "good/ü#1.png", "bad/x.webp", "labels.csv"}


def test_a_folder_is_uploaded_with_its_names_types_and_digests(account, folder):
    done = upload(account, str(folder), "az://uploads/line 4/")
    assert (done.uploaded, done.skipped, done.created) == (4, 0, True)
    assert done.ignored == {
        "hidden": 2,
        "not a file": 1,
        "broken link": 1,
        "name with control characters": 1,
        "name that is not UTF-8": 1,
    }
    found = {
        b.name.removeprefix("line 4/"): b for b in open_service(account).get_container_client("uploads").list_blobs()
    }
    assert set(found) == NAMES
    assert done.bytes == sum(blob.size for blob in found.values())
    kinds = {name: blob.content_settings.content_type for name, blob in found.items()}
    assert {kinds["good/a b.jpg"], kinds["good/ü#1.png"], kinds["bad/x.webp"]} == {
        "image/jpeg",
        "image/png",
        "image/webp",
    }
    for name, blob in found.items():
        assert bytes(blob.content_settings.content_md5) == hashlib.md5((folder / name).read_bytes()).digest()
    reader = Images(account.name, account.endpoint, account.credentials)
    assert reader.read("az://uploads/line 4/good/ü#1.png") == "content of good/ü#1.png".encode()


def test_what_is_there_with_the_same_content_is_skipped(account, folder):
    upload(account, str(folder), "az://twice")
    (folder / "bad/x.webp").write_bytes(b"other content")
    (folder / "new.jpg").write_bytes(b"new")
    again = upload(account, str(folder), "az://twice")
    assert (again.uploaded, again.skipped, again.created, again.bytes) == (2, 3, False, 16)


def test_a_file_larger_than_one_request_is_uploaded_and_skipped_like_any_other(account, tmp_path, monkeypatch):
    from azure.storage.blob import BlobServiceClient

    monkeypatch.setattr(
        "glint.adapters.blob_admin.BlobServiceClient", partial(BlobServiceClient, max_single_put_size=1000)
    )
    (tmp_path / "big.tif").write_bytes(os.urandom(50_000))
    assert upload(account, str(tmp_path), "az://big").uploaded == 1
    assert upload(account, str(tmp_path), "az://big").skipped == 1


def test_a_file_that_cannot_be_read_is_named(account, folder, monkeypatch):
    if os.geteuid() == 0:
        pytest.skip("nothing is denied to root")
    (folder / "bad/x.webp").chmod(0)
    with pytest.raises(GlintError, match=r"DIR: .*bad/x\.webp cannot be read"):
        upload(account, str(folder), "az://unreadable")


@pytest.mark.parametrize(
    ("changed", "target", "complaint"),
    [
        ({"key": "a2V5"}, "az://uploads/x", "TARGET az://uploads/x cannot be written: .*check GLINT_BLOB_KEY"),
        ({"sas": -1.0}, "az://uploads/x", "GLINT_BLOB_SAS expired at"),
        ({"sas": 1.0}, "az://uploads/x", "check that GLINT_BLOB_SAS .* create and write"),
        ({}, "az://Not_a_name", "Not_a_name is no name of a container"),
        (
            {"endpoint": "http://127.0.0.1:{closed}/x"},
            "az://uploads",
            "GLINT_BLOB_ENDPOINT .*does not answer .*refused",
        ),
        ({"endpoint": "https://glint.invalid"}, "az://uploads", "GLINT_BLOB_ENDPOINT .*does not answer .no such host"),
        (
            {"name": "glintnosuch", "endpoint": None},
            "az://uploads",
            "GLINT_BLOB_ACCOUNT glintnosuch: .*does not answer",
        ),
        ({}, "somewhere", "TARGET 'somewhere' must be az://CONTAINER"),
        ({}, "az://images//line-4", "TARGET 'az://images//line-4': a prefix has no empty part"),
        ({}, "az://images/../others", "TARGET 'az://images/../others': a prefix has no empty part"),
    ],
)
def test_what_is_wrong_is_one_line_naming_the_setting(azurite, account, folder, changed, target, complaint):
    endpoint = changed.get("endpoint", azurite.endpoint)
    found = {"account_key": changed.get("key", azurite.key)}
    if hours := changed.get("sas"):
        found = {"sas_key": sas(azurite, "uploads", hours)}
    wrong = BlobAccount(
        changed.get("name", azurite.account),
        endpoint and endpoint.format(closed=closed_port()),
        partial(secrets, **found),
    )
    begun = time.monotonic()
    with pytest.raises(GlintError, match=complaint) as caught:
        upload(wrong, str(folder), target)
    assert time.monotonic() - begun < 10
    assert "\n" not in str(caught.value)
    assert not any(secret in str(caught.value) for secret in ("a2V5", azurite.key, "sig="))


def test_a_server_that_takes_connections_and_never_answers_is_given_up_soon(account, folder, deaf):
    silent = BlobAccount(account.name, f"http://127.0.0.1:{deaf}/x", account.credentials)
    begun = time.monotonic()
    said = r"cannot be written: GLINT_BLOB_ENDPOINT .*not answer \(it took the connection and sent nothing for 5 s\)"
    with pytest.raises(GlintError, match=f"TARGET az://uploads {said}"):
        upload(silent, str(folder), "az://uploads")
    assert time.monotonic() - begun < 9


@pytest.mark.parametrize("fault", [Fault.status(503), Fault.reset()])
def test_a_short_fault_of_the_first_request_is_waited_out(account, folder, blob_proxy, fault):
    behind = BlobAccount(account.name, f"{blob_proxy.url}/{account.name}", account.credentials)
    with injected(blob_proxy, Policy(fault, operations={"list"}, limit=2)) as policy:
        assert upload(behind, str(folder), f"az://short-{fault.kind}").uploaded == 4
    assert len(policy.made) == 2


def test_a_folder_that_is_none_is_named(account, tmp_path):
    with pytest.raises(GlintError, match=r"DIR .*absent is no folder"):
        upload(account, str(tmp_path / "absent"), "az://uploads")
