"""Images in folders and in blob storage: every name survives, and every failure is one image's own."""

import os
import pickle
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest

from glint.adapters.files import file_uri, local_path
from glint.adapters.images import Images, address
from glint.core.errors import GlintError, ImageError

ODD_NAMES = [
    "a b.jpg",
    "a#1.png",
    "a%20b.jpg",
    "100%.JPG",
    "ünï.jpeg",
    "日本/q?.webp",
    "[x]&'.tiff",
    "tab\t.bmp",
    "back\\.gif",
]


def write(path: Path, data: bytes = b"pixels") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def status_of(read, *arguments) -> str:
    with pytest.raises(ImageError) as caught:
        read(*arguments)
    return caught.value.status


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_file_name_is_listed_and_read_again(tmp_path, name):
    path = write(tmp_path / "my images" / name, name.encode())
    (listed,) = Images().list(str(tmp_path / "my images"))
    assert (listed.path, listed.size, listed.ignored) == (name, len(name.encode()), None)
    assert Images().read(listed.uri, listed.etag) == name.encode()
    assert listed.uri == file_uri(str(path)) == address(name, str(tmp_path / "my images"))
    assert listed.uri.isascii()


def test_a_name_that_is_not_utf8_is_listed_and_read_again(tmp_path):
    with open(os.fsencode(tmp_path) + b"/bad\xff.jpg", "wb") as file:  # noqa: PTH123  Path has no bytes
        file.write(b"pixels")
    (listed,) = Images().list(str(tmp_path))
    assert listed.path == "bad\ufffd.jpg"
    assert Images().read(listed.uri, listed.etag) == b"pixels"


def test_a_listing_is_recursive_and_in_the_order_of_names(tmp_path):
    for name in ("b/2.jpg", "c.jpg", "b/1.jpg", "a/deep/er/x.png"):
        write(tmp_path / name)
    assert [entry.path for entry in Images().list(str(tmp_path))] == ["a/deep/er/x.png", "b/1.jpg", "b/2.jpg", "c.jpg"]


def test_what_is_no_image_is_listed_with_the_reason(tmp_path):
    write(tmp_path / "notes.txt")
    write(tmp_path / "x.jpg#1")
    write(tmp_path / ".hidden.jpg")
    write(tmp_path / ".cache" / "y.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "broken.jpg").symlink_to("nowhere")
    reasons = {entry.path: entry.ignored for entry in Images().list(str(tmp_path))}
    assert reasons == {
        "notes.txt": "not an image name",
        "x.jpg#1": "not an image name",
        ".hidden.jpg": "hidden",
        ".cache": "hidden",
        "pipe.jpg": "not a file",
        "broken.jpg": "broken link",
    }


def test_links_are_followed_but_not_in_circles(tmp_path):
    write(tmp_path / "elsewhere" / "x.jpg")
    (tmp_path / "source" / "sub").mkdir(parents=True)
    (tmp_path / "source" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "source" / "sub" / "up").symlink_to(tmp_path / "source")
    reasons = {entry.path: entry.ignored for entry in Images().list(str(tmp_path / "source"))}
    assert reasons == {"linked/x.jpg": None, "sub/up": "link to a folder above it"}


def test_a_folder_below_a_hidden_one_is_listed(tmp_path):
    write(tmp_path / ".glint" / "images" / "x.jpg")
    assert [entry.ignored for entry in Images().list(str(tmp_path / ".glint" / "images"))] == [None]


def test_a_source_is_a_path_or_a_file_address(tmp_path, monkeypatch):
    write(tmp_path / "my images" / "x.jpg")
    monkeypatch.chdir(tmp_path)
    by_path, by_address = Images().list("my images"), Images().list(file_uri(str(tmp_path / "my images")))
    assert list(by_path) == list(by_address)


@pytest.mark.parametrize("source", ["nowhere", "a.txt", "https://host/images"])
def test_a_source_that_is_no_folder_is_named(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.txt")
    with pytest.raises(GlintError, match=f"SOURCE {source} is no folder.*az://"):
        Images().list(source)


def test_an_image_is_read_from_a_plain_path(tmp_path):
    assert Images().read(str(write(tmp_path / "a b%20.jpg"))) == b"pixels"


def test_a_changed_file_is_told_from_the_one_listed(tmp_path):
    path = write(tmp_path / "x.jpg")
    (listed,) = Images().list(str(tmp_path))
    path.write_bytes(b"other pixels")
    assert status_of(Images().read, listed.uri, listed.etag) == "changed"
    assert Images().read(listed.uri) == b"other pixels"


def test_a_touched_file_of_the_same_size_is_changed_too(tmp_path):
    path = write(tmp_path / "x.jpg")
    (listed,) = Images().list(str(tmp_path))
    os.utime(path, (1, 1))
    assert status_of(Images().read, listed.uri, listed.etag) == "changed"


def test_a_copy_that_kept_its_times_is_the_same_image(tmp_path):
    path = write(tmp_path / "x.jpg")
    (listed,) = Images().list(str(tmp_path))
    copy = write(tmp_path / "copy")
    os.utime(copy, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    copy.replace(path)
    assert Images().read(listed.uri, listed.etag) == b"pixels"


def test_each_way_a_file_cannot_be_read_has_its_status(tmp_path):
    images = Images(max_bytes=5)
    os.mkfifo(tmp_path / "pipe.jpg")
    assert status_of(images.read, str(tmp_path / "absent.jpg")) == "missing"
    assert status_of(images.read, f"file://{write(tmp_path / 'big.jpg')}") == "too_large"
    assert status_of(images.read, str(tmp_path)) == "failed"
    assert status_of(images.read, str(tmp_path / "pipe.jpg")) == "failed"
    assert status_of(images.read, "https://host/x.jpg") == "failed"
    assert status_of(images.read, "file:///with%00zero.jpg") == "failed"


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is denied to root")
def test_a_file_that_may_not_be_read_is_denied(tmp_path):
    path = write(tmp_path / "x.jpg")
    path.chmod(0)
    assert status_of(Images().read, str(path)) == "denied"


def test_an_empty_file_is_read_as_no_bytes(tmp_path):
    assert Images().read(str(write(tmp_path / "x.jpg", b""))) == b""


def test_many_are_read_in_order_and_a_bad_one_disturbs_no_other(tmp_path):
    for number in range(50):
        write(tmp_path / f"{number:02}.jpg", str(number).encode())
    listed = list(Images().list(str(tmp_path)))
    (tmp_path / "07.jpg").unlink()
    read = list(Images(read_threads=3).read_many([e.uri for e in listed], [e.etag for e in listed]))
    assert isinstance(read[7], ImageError)
    assert read[7].status == "missing"
    assert [data for data in read if not isinstance(data, ImageError)] == [str(n).encode() for n in range(50) if n != 7]


def test_reading_many_keeps_few_in_memory(tmp_path):
    path, asked = str(write(tmp_path / "x.jpg")), []

    def paths():
        for number in range(1000):
            asked.append(number)
            yield path

    next(Images(read_threads=4).read_many(paths(), iter(lambda: None, 1)))
    assert len(asked) <= 8


def test_paths_of_a_label_file_mean_what_the_listing_found(tmp_path):
    uri = file_uri(str(write(tmp_path / "s" / "a b.jpg")))
    for path in ("a b.jpg", "./a b.jpg", "x/../a b.jpg", str(tmp_path / "s" / "a b.jpg"), uri, uri.replace("%20", " ")):
        assert address(path, str(tmp_path / "s")) == address(path, file_uri(str(tmp_path / "s"))) == uri
    assert address("az://c/k.jpg", str(tmp_path)) == "az://c/k.jpg"
    for path in ("a b.jpg", "./a b.jpg", "az://c/line 4/a b.jpg"):
        assert address(path, "az://c/line 4/") == "az://c/line 4/a b.jpg"
    assert address("x.jpg", "az://c") == "az://c/x.jpg"


def test_a_file_address_and_its_path_are_two_ways_to_say_the_same(tmp_path):
    assert local_path(file_uri("/a b/ü#.jpg")) == "/a b/ü#.jpg"


BLOBS = {
    "line 4/good/a b.jpg": b"good",
    "line 4/bad/100%.PNG": b"bad!",
    "line 4/readme.md": b"text",
    "line 5/x.jpg": b"x",
}


class BlobHandler(BaseHTTPRequestHandler):
    """As much of Azure's Blob service as listing and reading need, for the container `pics` and the key `a2V5`."""

    def do_GET(self) -> None:
        address, query = urlsplit(self.path), parse_qs(urlsplit(self.path).query)
        container, _, key = unquote(address.path).removeprefix("/account/").partition("/")
        if container == "secret" or not self.headers["Authorization"].startswith("SharedKey account:"):
            self.answer(403)
        elif container != "pics":
            self.answer(404, b"<Error><Code>ContainerNotFound</Code></Error>", "application/xml")
        elif key and key not in BLOBS:
            self.answer(404, b"<Error><Code>BlobNotFound</Code></Error>", "application/xml")
        elif key:
            self.get(key)
        else:
            self.answer(200, self.listing(query.get("prefix", [""])[0]).encode(), "application/xml")

    def get(self, key: str) -> None:
        pinned = self.headers.get("If-Match")
        if pinned in (None, f'"{len(key)}"'):
            self.answer(200, BLOBS[key], etag=f'"{len(key)}"')
        else:
            self.answer(412)

    def listing(self, prefix: str) -> str:
        blobs = "".join(
            f"<Blob><Name>{escape(key)}</Name><Properties><Last-Modified>Wed, 01 Oct 2025 10:00:00 GMT</Last-Modified>"
            f"<Etag>{len(key)}</Etag><Content-Type>image/jpeg</Content-Type><Content-Length>{len(data)}</Content-Length></Properties></Blob>"
            for key, data in sorted(BLOBS.items())
            if key.startswith(prefix)
        )
        return f'<?xml version="1.0"?><EnumerationResults><Blobs>{blobs}</Blobs><NextMarker/></EnumerationResults>'

    def answer(self, status: int, body: bytes = b"", kind: str = "image/jpeg", etag: str = '"0"') -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", kind)
        self.send_header("Last-Modified", "Wed, 01 Oct 2025 10:00:00 GMT")
        self.send_header("ETag", etag)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


def account_key() -> dict[str, str]:
    return {"account_key": "a2V5"}


def bad_key() -> dict[str, str]:
    return {"account_key": "not base 64!"}


@pytest.fixture(scope="module")
def endpoint():
    server = ThreadingHTTPServer(("127.0.0.1", 0), BlobHandler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/account"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def blobs(endpoint) -> Images:
    return Images("account", endpoint, account_key, read_threads=2)


def test_blobs_below_a_prefix_are_listed_and_read(blobs):
    listed = {entry.path: entry for entry in blobs.list("az://pics/line 4/")}
    assert {path: entry.ignored for path, entry in listed.items()} == {
        "bad/100%.PNG": None,
        "good/a b.jpg": None,
        "readme.md": "not an image name",
    }
    found = listed["bad/100%.PNG"]
    assert (found.uri, found.size) == ("az://pics/line 4/bad/100%.PNG", 4)
    assert blobs.read(found.uri, found.etag) == b"bad!"
    assert blobs.read(found.uri) == b"bad!"


def test_each_way_a_blob_cannot_be_read_has_its_status(blobs, endpoint):
    assert status_of(blobs.read, "az://pics/line 4/absent.jpg") == "missing"
    assert status_of(blobs.read, "az://pics/line 5/x.jpg", "other") == "changed"
    assert status_of(blobs.read, "az://secret/x.jpg") == "denied"
    small = Images("account", endpoint, account_key, max_bytes=3)
    assert status_of(small.read, "az://pics/line 4/good/a b.jpg") == "too_large"


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("az://nowhere/x", "account account has no container nowhere"),
        ("az://secret", "refuses it; check GLINT_BLOB_KEY"),
    ],
)
def test_a_container_that_cannot_be_listed_says_why(blobs, source, complaint):
    with pytest.raises(GlintError, match=f"SOURCE {source} cannot be listed: .*{complaint}"):
        list(blobs.list(source))


def test_without_an_account_the_setting_is_named():
    for use in (Images().read, Images().list):
        with pytest.raises(GlintError, match="set GLINT_BLOB_ACCOUNT"):
            use("az://pics/x.jpg")


def test_an_address_without_a_container_is_refused(blobs):
    with pytest.raises(GlintError, match="az:// names no container"):
        blobs.list("az://")


def test_a_key_that_is_none_names_the_settings(endpoint):
    with pytest.raises(GlintError, match="GLINT_BLOB_") as caught:
        Images("account", endpoint, bad_key).read("az://pics/x.jpg")
    assert "not base 64!" not in str(caught.value)


def test_images_travel_without_connections_and_secrets(blobs):
    blobs.read("az://pics/line 5/x.jpg")
    sent = pickle.dumps(blobs)
    assert b"a2V5" not in sent
    assert pickle.loads(sent).read("az://pics/line 5/x.jpg") == b"x"  # noqa: S301  our own
