"""The manifest: what comes back, what its digest says, and how little is read."""

import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glint.core import manifest as module
from glint.core.errors import GlintError
from glint.core.job import CHUNK_ROWS
from glint.core.manifest import ROW_GROUP_ROWS, SCHEMA, Manifest, RowDigest, write_manifest

LABELS = ("open", None, "good", "short")
SPLITS = ("train", None, "val", "test")


def image(number: int) -> dict[str, object]:
    label = LABELS[number % 4]
    return {
        "uri": f"file:///boards/{number:05}.jpg",
        "etag": f"e{number}",
        "size": number,
        "labels": None if label is None else [label],
        "group": None if number % 5 == 0 else f"lot-{number % 5}",
        "split": SPLITS[number % 4],
        "board": f"{number % 7:03}",
    }


def table(rows: list[dict[str, object]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=pa.schema([*SCHEMA, ("board", pa.string())]))


IMAGES = [image(number) for number in range(400)]


@pytest.fixture
def small_row_groups(monkeypatch):
    monkeypatch.setattr(module, "ROW_GROUP_ROWS", CHUNK_ROWS)


@pytest.fixture
def manifest(tmp_path, small_row_groups) -> Manifest:
    batches = (table(IMAGES[start : start + 37]) for start in range(0, 400, 37))
    return write_manifest(
        tmp_path / "m.parquet", batches, source="file:///boards", split_rule={"group": "lot"}, parent="p"
    )


def digest_of(rows: pa.Table) -> str:
    digest = RowDigest()
    digest.add(rows)
    return digest.digest


def test_a_manifest_gives_back_what_was_written(manifest):
    opened = Manifest.open(manifest.path)
    assert opened == manifest
    assert opened.table().to_pylist() == IMAGES
    assert (opened.source, opened.parent, opened.split_rule) == ("file:///boards", "p", {"group": "lot"})
    assert (opened.num_rows, opened.columns, opened.path.is_absolute()) == (400, ("board",), True)


def test_classes_are_sorted_and_stored(manifest):
    assert manifest.classes == ("good", "open", "short")


def test_row_groups_hold_whole_chunks(manifest):
    assert ROW_GROUP_ROWS % CHUNK_ROWS == 0
    metadata = pq.read_metadata(manifest.path)
    assert [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)] == [99, 99, 99, 99, 4]


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 99), (99, 198), (90, 110), (150, 151), (396, 495), (0, 400), (7, 7), (20, 10), (500, 600)]
)
def test_rows_are_those_of_a_slice(manifest, start, stop):
    assert manifest.rows(start, stop).to_pylist() == IMAGES[start:stop]
    assert manifest.rows(start, stop, ["group", "uri"]).schema.names == ["group", "uri"]


def test_a_chunk_is_read_from_its_row_group_alone(manifest, monkeypatch):
    read = []
    original = pq.ParquetFile.read_row_groups
    monkeypatch.setattr(
        pq.ParquetFile,
        "read_row_groups",
        lambda file, groups, **kw: read.append(groups) or original(file, groups, **kw),
    )
    manifest.rows(198, 297)
    assert read == [[2]]


def test_only_the_rows_and_columns_asked_for_come(manifest):
    val = [row for row in IMAGES if row["split"] == "val"]
    assert manifest.table(["size", "uri"], split="val").to_pylist() == [
        {"size": r["size"], "uri": r["uri"]} for r in val
    ]
    assert manifest.table(labelled=False).num_rows == 100
    assert manifest.table(["uri"], split="train", labelled=True).num_rows == 100
    assert manifest.table(["board"], split="train", labelled=False).schema.names == ["board"]


def test_rows_stream_a_row_group_at_a_time(manifest):
    batches = list(manifest.batches(["uri"]))
    assert max(batch.num_rows for batch in batches) == 99
    assert [uri for batch in batches for uri in batch["uri"].to_pylist()] == [row["uri"] for row in IMAGES]


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ({"columns": ["lot"]}, "no column 'lot'; its columns are uri, .*board"),
        ({"split": "dev"}, "train, val, test, got dev"),
    ],
)
def test_what_does_not_exist_is_named_with_what_does(manifest, asked, complaint):
    with pytest.raises(GlintError, match=complaint):
        manifest.table(**asked)


def test_a_manifest_is_small_to_send_to_a_worker(manifest):
    sent = pickle.dumps(manifest)
    assert len(sent) < 1000
    assert pickle.loads(sent).table().num_rows == 400  # noqa: S301  our own


@given(st.permutations(IMAGES[:12]), st.integers(1, 12))
def test_digest_depends_on_neither_order_nor_batches(rows, size):
    batched = RowDigest()
    for start in range(0, len(rows), size):
        batched.add(table(rows[start : start + size]))
    assert batched.digest == digest_of(table(IMAGES[:12]))


def test_digest_does_not_depend_on_row_groups(tmp_path, manifest, monkeypatch):
    monkeypatch.setattr(module, "ROW_GROUP_ROWS", 2 * CHUNK_ROWS)
    other = write_manifest(tmp_path / "other.parquet", [table(IMAGES[::-1])], source="elsewhere")
    assert other.digest == manifest.digest == digest_of(table(IMAGES))


text = st.none() | st.text('a",[]\\é', max_size=3)
rows = st.fixed_dictionaries(
    {
        "uri": st.text('a",', max_size=3),
        "etag": text,
        "size": st.integers(0, 3),
        "labels": st.none() | st.lists(st.text('a",', max_size=2), max_size=2),
        "group": text,
        "split": text,
    }
)


@given(rows, rows)
def test_digests_are_equal_only_for_equal_rows(one, other):
    digests = [digest_of(pa.Table.from_pylist([row], schema=SCHEMA)) for row in (one, other)]
    assert (digests[0] == digests[1]) == (one == other)


def test_digest_counts_a_row_that_comes_twice():
    assert digest_of(table(IMAGES[:1])) != digest_of(table(IMAGES[:1] * 3))


def test_digest_ignores_further_columns_but_not_the_named_ones():
    first = IMAGES[1]
    assert digest_of(table([first])) == digest_of(table([{**first, "board": "other"}]))
    for column in SCHEMA.names:
        assert digest_of(table([first])) != digest_of(table([{**first, column: None}])) or first[column] is None


def test_a_digest_stays_what_it_was_in_every_version():
    assert digest_of(table(IMAGES)) == "150a254a7f83d4a69e302b3758fb6fa0535ec0055a1ecb8075d05f284656766b"


def test_labels_of_several_classes_all_become_classes(tmp_path):
    rows = table([{**IMAGES[0], "labels": ["spur", "open"]}, {**IMAGES[1], "labels": []}])
    assert write_manifest(tmp_path / "m.parquet", [rows], source="s").classes == ("open", "spur")


def test_an_interrupted_write_leaves_what_was_there(tmp_path, manifest):
    def interrupted():
        yield table(IMAGES)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_manifest(manifest.path, interrupted(), source="s")
    assert Manifest.open(manifest.path) == manifest
    assert [file.name for file in tmp_path.iterdir()] == ["m.parquet"]


def test_a_manifest_without_rows_is_refused_and_not_written(tmp_path):
    with pytest.raises(GlintError, match="at least one image"):
        write_manifest(tmp_path / "m.parquet", [table([])], source="az://pics")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_manifest_is_named_with_how_to_make_one(tmp_path):
    (tmp_path / "text.parquet").write_text("no Parquet at all, and longer than its magic number")
    (tmp_path / "folder").mkdir()
    pq.write_table(table(IMAGES), tmp_path / "plain.parquet")
    complaints = {
        "absent.parquet": "does not exist",
        "text.parquet": "is not a manifest of glint",
        "folder": "is not a manifest of glint",
        "plain.parquet": "is Parquet, but not a manifest of glint",
    }
    for name, complaint in complaints.items():
        with pytest.raises(GlintError, match=f"--manifest .*{name} {complaint}; make one with: glint snapshot"):
            Manifest.open(tmp_path / name)
