"""A blob server that goes wrong: every image ends as its bytes or as the right error, and a listing loses none."""

import dataclasses
import random
import threading
from collections import Counter
from functools import partial

import pytest
from tests.azure.test_blob_images import sas, secrets

from glint.adapters import blob_listing, blobs
from glint.adapters.blob_account import BlobAccount
from glint.adapters.blob_admin import open_service
from glint.adapters.blob_upload import upload
from glint.adapters.blobs import Blob
from glint.adapters.images import Images
from glint.core.errors import GlintError, ImageError
from glint.emulators.faults import Asked, Fault
from glint.pipelines import snapshot as snapshotting

NUM = 60
CONTENT = {f"lot {number % 3}/{number:03}.jpg": bytes([number]) * (2000 + number) for number in range(NUM)}


@pytest.fixture(scope="module")
def behind(azurite) -> BlobAccount:
    """The account without the proxy."""
    account = BlobAccount(azurite.account, azurite.endpoint, partial(secrets, account_key=azurite.key))
    container = open_service(account).create_container("faults")
    for name, data in CONTENT.items():
        container.upload_blob(name, data)
    return account


@pytest.fixture
def account(behind, blob_proxy):
    """The account by the proxy, which passes everything on until `fault` is set."""
    yield BlobAccount(behind.name, f"{blob_proxy.url}/{behind.name}", behind.credentials)
    blob_proxy.fault = None


@pytest.fixture
def images(account) -> Images:
    return Images(account.name, account.endpoint, account.credentials, read_threads=8)


def faults(*kinds: Fault, operation: str = "get", share: float = 0.5, seed: int = 0):
    """A policy that makes one of the faults of that share of requests, and counts them."""
    chosen, made = random.Random(seed), Counter()

    async def policy(asked) -> Fault | None:
        if asked.operation != operation or chosen.random() >= share:
            return None
        fault = chosen.choice(kinds)
        made[fault.kind] += 1
        return fault

    policy.made = made
    return policy


def read_all(images: Images) -> dict[str, bytes | ImageError]:
    listed = list(images.list("az://faults"))
    read = images.read_many([entry.uri for entry in listed], [entry.etag for entry in listed])
    return dict(zip([entry.path for entry in listed], read, strict=True))


@pytest.mark.parametrize("fault", [Fault.status(503), Fault.reset(), Fault.status(500), Fault.lost()])
def test_every_image_is_read_though_half_of_the_requests_fail(images, blob_proxy, fault):
    blob_proxy.fault = policy = faults(fault)
    assert read_all(images) == CONTENT
    assert policy.made.total() > NUM / 2


def test_a_truncated_body_is_never_taken_for_an_image(images, blob_proxy):
    blob_proxy.fault = policy = faults(Fault.truncate())
    assert read_all(images) == CONTENT
    assert policy.made.total() > NUM / 2


def test_a_body_that_always_breaks_off_is_a_failed_image(images, blob_proxy, monkeypatch):
    monkeypatch.setattr(blobs, "READ_RETRIES", {"max_retries": 1})

    async def first_one(asked) -> Fault | None:
        return Fault.truncate() if "000.jpg" in asked.path else None

    blob_proxy.fault = first_one
    read = read_all(images)
    error = read.pop("lot 0/000.jpg")
    assert isinstance(error, ImageError)
    assert (error.status, error.type) == ("failed", "broken_off")
    assert read == {name: data for name, data in CONTENT.items() if name != "lot 0/000.jpg"}


def test_each_kind_of_failure_keeps_to_its_own_images(images, blob_proxy, monkeypatch, azurite, behind):
    monkeypatch.setattr(blobs, "READ_RETRIES", {"max_retries": 1})
    listed = list(images.list("az://faults"))
    container = open_service(behind).get_container_client("faults")
    container.upload_blob("lot 1/001.jpg", b"changed since", overwrite=True)
    container.delete_blob("lot 2/002.jpg")

    async def policy(asked) -> Fault | None:
        if "lot%200" in asked.path:
            return Fault.status(403)
        return Fault.status(503) if "004.jpg" in asked.path else None

    blob_proxy.fault = policy
    try:
        read = images.read_many([entry.uri for entry in listed], [entry.etag for entry in listed])
        ends = {e.path: r.status if isinstance(r, ImageError) else r for e, r in zip(listed, read, strict=True)}
        again = list(images.read_many([listed[0].uri], [None]))
    finally:
        for name in ("lot 1/001.jpg", "lot 2/002.jpg"):
            container.upload_blob(name, CONTENT[name], overwrite=True)
    kinds = Counter(end for end in ends.values() if isinstance(end, str))
    assert kinds == {"denied": NUM // 3, "changed": 1, "missing": 1, "failed": 1}
    assert (ends["lot 1/001.jpg"], ends["lot 2/002.jpg"], ends["lot 1/004.jpg"]) == ("changed", "missing", "failed")
    assert {name: end for name, end in ends.items() if isinstance(end, bytes)} == {
        name: data for name, data in CONTENT.items() if not isinstance(ends[name], str)
    }
    assert again[0].status == "denied"


def test_a_short_outage_is_waited_out(images, blob_proxy):
    uris = [entry.uri for entry in images.list("az://faults")]
    blob_proxy.pause()
    timer = threading.Timer(1.0, blob_proxy.resume)
    timer.start()
    try:
        assert list(images.read_many(uris, [None] * NUM)) == [CONTENT[uri[12:]] for uri in uris]
    finally:
        timer.join()


class Pages:
    """A policy that breaks the answers to the so-manieth requests for a page."""

    def __init__(self, fault: Fault, *broken: int) -> None:
        self.fault, self.broken, self.asked = fault, broken, 0

    async def __call__(self, asked) -> Fault | None:
        if asked.operation != "list":
            return None
        self.asked += 1
        return self.fault if self.asked in self.broken else None


@pytest.fixture
def few_a_page(account, azurite, blob_proxy, monkeypatch) -> Images:
    """Images listed 7 at a time, which obstore has no setting for; a SAS does not sign the query, as a key does."""
    passed = blob_proxy._pass

    async def smaller(asked: Asked):
        more = "&maxresults=7" if asked.operation == "list" else ""
        return await passed(dataclasses.replace(asked, path=asked.path + more))

    monkeypatch.setattr(blob_proxy, "_pass", smaller)
    monkeypatch.setattr(blob_listing, "LIST_RETRIES", {"max_retries": 0})
    monkeypatch.setattr(blob_listing, "LIST_CHUNK", 7)
    return Images(account.name, account.endpoint, partial(secrets, sas_key=sas(azurite, "faults", 1)))


@pytest.mark.parametrize("fault", [Fault.truncate(), Fault.reset(), Fault.status(503), Fault.lost()])
def test_a_listing_that_breaks_goes_on_behind_the_last_name(few_a_page, blob_proxy, fault):
    blob_proxy.fault = pages = Pages(fault, 1, 4, 5, 9)
    assert [entry.path for entry in few_a_page.list("az://faults")] == sorted(CONTENT)
    assert pages.asked > NUM / 7 + 4


def test_a_listing_that_is_refused_half_way_says_so(few_a_page, blob_proxy):
    blob_proxy.fault = Pages(Fault.status(403), 4)
    listed = few_a_page.list("az://faults")
    assert [next(listed).path for _ in range(21)] == sorted(CONTENT)[:21]
    with pytest.raises(GlintError, match=r"SOURCE az://faults cannot be listed: .*check that GLINT_BLOB_SAS"):
        next(listed)


def test_a_snapshot_that_was_refused_half_way_goes_on_when_it_is_taken_again(
    few_a_page, blob_proxy, tmp_path, monkeypatch
):
    monkeypatch.setattr(snapshotting, "BATCH_ROWS", 7)
    whole = snapshotting.snapshot(few_a_page, "az://faults", tmp_path / "whole.parquet", "none")
    out = tmp_path / "m.parquet"
    blob_proxy.fault = Pages(Fault.status(403), 5)
    with pytest.raises(GlintError, match=r"SOURCE az://faults cannot be listed: .*check that GLINT_BLOB_SAS"):
        snapshotting.snapshot(few_a_page, "az://faults", out, "none")
    assert [path.name for path in tmp_path.iterdir() if "m.parquet" in path.name] == [".m.parquet.listing"]
    blob_proxy.fault = None
    again = snapshotting.snapshot(few_a_page, "az://faults", out, "none")
    assert (again.digest, again.num_images) == (whole.digest, NUM)
    assert not (tmp_path / ".m.parquet.listing").exists()


def test_what_comes_behind_the_last_name_does_not_depend_on_the_order():
    """A server may begin there, or ignore that; a hierarchical namespace has / as its lowest character."""
    flat, hierarchical = ["a-b/x", "a/x", "b"], ["a/x", "a-b/x", "b"]
    for names in (flat, hierarchical):
        everything = [Blob(name, None, 0) for name in names]
        for number, last in enumerate(everything):
            for begun in (everything, everything[number:], everything[number + 1 :]):
                left = blob_listing._behind(iter(begun), everything[0].name, last.name, "az://c")
                assert list(left) == everything[number + 1 :], (names, last, begun)


def test_a_listing_whose_last_name_is_gone_is_not_taken_for_whole():
    names = [Blob(name, None, 0) for name in ("a", "b", "d")]
    with pytest.raises(GlintError, match="az://c changed while it was listed: c is gone"):
        list(blob_listing._behind(iter(names), "a", "c", "az://c"))


def test_an_upload_survives_faults(account, blob_proxy, tmp_path):
    for number in range(20):
        (tmp_path / f"{number}.jpg").write_bytes(bytes([number]) * 500)
    blob_proxy.fault = policy = faults(Fault.status(503), Fault.reset(), Fault.lost(), operation="put", share=0.4)
    done = upload(account, str(tmp_path), "az://faulty/x")
    assert (done.uploaded, done.bytes) == (20, 10_000)
    assert policy.made.total() > 0
    blob_proxy.fault = None
    assert upload(account, str(tmp_path), "az://faulty/x").skipped == 20


def test_an_upload_that_is_interrupted_goes_on(account, blob_proxy, tmp_path):
    for number in range(20):
        (tmp_path / f"{number:02}.jpg").write_bytes(bytes([number]) * 500)

    async def not_the_later_ones(asked) -> Fault | None:
        return Fault.status(403) if "/15.jpg" in asked.path else None

    blob_proxy.fault = not_the_later_ones
    with pytest.raises(GlintError, match=r"TARGET az://again/x cannot be written: .*check GLINT_BLOB_KEY"):
        upload(account, str(tmp_path), "az://again/x", num_threads=2)
    blob_proxy.fault = None
    done = upload(account, str(tmp_path), "az://again/x", num_threads=2)
    assert done.skipped >= 15
    assert done.uploaded + done.skipped == 20
