"""Inputs that came by name, as manifests."""

import json
from pathlib import Path

import pytest
from tests.pipelines.progress import Told

from glint.adapters.images import Images
from glint.core.errors import GlintError
from glint.core.submission import JobInput
from glint.pipelines.listing import open_input, read_list


def named(path: Path, home: Path, images: Images | None = None) -> list[str]:
    """The addresses that a list comes to, each of which is checked."""
    checked = list[str]()
    source, manifest = open_input(JobInput(uri=str(path)), images or Images(), home, "job", checked.append, Told())
    assert source == str(path)
    assert checked == manifest.table(["uri"])["uri"].to_pylist()
    return checked


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_csv_list_names_images_by_its_column_uri(tmp_path: Path, mark: str) -> None:
    path = tmp_path / "night.csv"
    path.write_text(f"{mark}uri,line\n/data/a.jpg,4\naz://images/ö.jpg,5\n/data/a.jpg,4\nnear.jpg,6\n", "utf-8")
    assert named(path, tmp_path) == ["file:///data/a.jpg", "az://images/ö.jpg", f"file://{tmp_path}/near.jpg"]


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_jsonl_list_names_images_by_their_field_or_alone(tmp_path: Path, mark: str) -> None:
    path, entries = tmp_path / "night.jsonl", [{"uri": "/data/a.jpg"}, "az://images/b\u2028.jpg"]
    path.write_text(mark + "\r\n\n".join(json.dumps(one, ensure_ascii=False) for one in entries) + "\n", "utf-8")
    assert named(path, tmp_path) == ["file:///data/a.jpg", "az://images/b\u2028.jpg"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("night.csv", "uri,group,line,etag\na.jpg,board-1,4,x\na.jpg,board-2,9,x\nb.jpg,,,\n"),
        ("night.jsonl", '{"uri": "a.jpg", "group": "board-1", "line": 4, "etag": "x"}\n"a.jpg"\n"b.jpg"\n'),
    ],
)
def test_further_columns_of_a_list_are_those_of_its_manifest(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    told = Told()
    _, manifest = open_input(JobInput(uri=str(tmp_path / name)), Images(), tmp_path, "job", lambda _: None, told)
    found = manifest.table(["uri", "group", "line", "etag"]).to_pylist()
    assert found == [
        {"uri": f"file://{tmp_path}/a.jpg", "group": "board-1", "line": "4", "etag": None},
        {"uri": f"file://{tmp_path}/b.jpg", "group": None, "line": None, "etag": None},
    ]
    assert told.lines == [
        "1 addresses are named more than once and scored once",
        "columns of the list that are not used: etag",
    ]


def test_a_list_is_no_image_to_have_a_limit(tmp_path: Path) -> None:
    path, images = tmp_path / "night.csv", Images(max_bytes=100)
    path.write_text("uri\n" + "".join(f"/data/{number}.jpg\n" for number in range(1000)))
    assert len(named(path, tmp_path, images)) == 1000
    assert images.max_bytes == 100


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.csv", b"path\n/data/a.jpg\n", "needs a column uri; it has path"),
        ("a.csv", b"uri\n\xff.jpg\n", "must be UTF-8"),
        ("a.jsonl", b'{"uri": "/data/a.jpg"}\nnothing\n', "line 2, is not JSON"),
        ("a.jsonl", b"[" * 100_000, "line 1, is not JSON"),
        ("a.jsonl", b'{"uri": "/data/\\ud800.jpg"}\n', "line 1, has half of a character"),
        ("a.csv", b"uri," + b"x" * 200_000, "line 0, is not CSV: field larger than field limit"),
        ("a.csv", b"uri\n/data/a.jpg\n" + b"x" * 200_000, "line 2, is not CSV: field larger than field limit"),
        ("a.jsonl", b'{"path": "/data/a.jpg"}\n', "line 1, needs a uri"),
    ],
)
def test_a_list_that_is_none_is_refused(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(GlintError, match=said):
        read_list(str(tmp_path / name), Images())
