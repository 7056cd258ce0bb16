"""A snapshot: labels joined, groups kept together, and one clear line for every mistake."""

import shutil
import tempfile
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from glint.adapters.files import file_uri
from glint.adapters.images import Images
from glint.core.errors import GlintError
from glint.core.manifest import Manifest
from glint.core.progress import Silent
from glint.pipelines.snapshot import Summary, snapshot

CLASSES = ("good", "open", "short")


class Lines(Silent):
    """Progress that keeps what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"pixels")


@pytest.fixture
def boards(tmp_path) -> Path:
    """Three lots of two images for each class, in a folder for each class."""
    names = [f"{label}/{lot}-{n}.jpg" for label in CLASSES for lot in ("007", "08", "9") for n in range(2)]
    touch(tmp_path / "boards", *names)
    rows = [f"{name},{name.split('/')[0]},{name.split('/')[1].split('-')[0]}" for name in names]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label,lot", *rows]) + "\n")
    return tmp_path / "boards"


@pytest.fixture
def labels(boards) -> Path:
    return boards.parent / "labels.csv"


def take(
    boards: Path, labels: object = "folders", group: str | None = None, val: str = "", test: str = "", **more
) -> Summary:
    named = [tuple(filter(None, names.split(","))) for names in (val, test)]
    return snapshot(Images(), str(boards), boards.parent / "m.parquet", str(labels), group, *named, **more)


def by_lot(boards: Path, labels: Path, **more) -> Summary:
    return take(boards, labels, "lot", "08", "9", **more)


def rows_of(summary: Summary) -> dict[str, dict]:
    rows = Manifest.open(summary.manifest).table().to_pylist()
    return {row["uri"].removeprefix(summary.source + "/"): row for row in rows}


def refusal(*arguments, **more) -> str:
    with pytest.raises(GlintError) as caught:
        take(*arguments, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_labels_and_further_columns_are_joined_as_they_are_written(boards, labels):
    summary = by_lot(boards, labels)
    row = rows_of(summary)["open/007-1.jpg"]
    pinned = next(entry for entry in Images().list(str(boards)) if entry.path == "open/007-1.jpg")
    assert row == {
        "uri": file_uri(str(boards / "open/007-1.jpg")),
        "etag": pinned.etag,
        "size": 6,
        "labels": ["open"],
        "group": "007",
        "split": "train",
        "lot": "007",
    }
    assert summary.classes == CLASSES


def test_named_groups_go_where_they_were_sent_and_counts_say_so(boards, labels):
    summary = by_lot(boards, labels)
    assert summary.counts == {split: dict.fromkeys(CLASSES, 2) for split in ("train", "val", "test")}
    splits = {row["group"]: row["split"] for row in rows_of(summary).values()}
    assert splits == {"007": "train", "08": "val", "9": "test"}
    assert (summary.num_images, summary.unlabelled, summary.warnings) == (18, 0, [])


def test_the_footer_says_how_the_manifest_came_to_be(boards, labels):
    summary = by_lot(boards, labels)
    manifest = Manifest.open(summary.manifest)
    assert (manifest.source, manifest.digest, manifest.classes) == (file_uri(str(boards)), summary.digest, CLASSES)
    assert manifest.split_rule == {
        "labels": str(labels),
        "group": "lot",
        "val_share": 0.1,
        "test_share": 0.1,
        "val_groups": ["08"],
        "test_groups": ["9"],
    }


def test_the_same_images_give_the_same_digest_and_a_changed_one_another(boards, labels):
    first = by_lot(boards, labels)
    assert by_lot(boards, labels).digest == first.digest
    (boards / "open/9-0.jpg").write_bytes(b"new pixels")
    assert by_lot(boards, labels).digest != first.digest


def test_rows_come_in_the_order_of_addresses(boards, labels):
    uris = Manifest.open(by_lot(boards, labels).manifest).table()["uri"].to_pylist()
    assert uris == sorted(uris)


def test_folders_name_classes_and_images_beside_them_have_none(tmp_path):
    touch(tmp_path / "s", *(f"{name}/sub/{n}.png" for name in ("cat", "[b] dog") for n in range(60)), "loose.png")
    progress = Lines()
    summary = take(tmp_path / "s", progress=progress)
    rows = rows_of(summary)
    assert summary.classes == ("[b] dog", "cat")
    assert (rows["cat/sub/3.png"]["labels"], rows["cat/sub/3.png"]["folder"]) == (["cat"], "cat/sub")
    assert (rows["loose.png"]["labels"], rows["loose.png"]["split"], summary.unlabelled) == (None, None, 1)
    assert progress.said == ["images without a label: 1; they are kept, in no split"]


def test_groups_may_be_folders(tmp_path):
    touch(tmp_path / "s", *(f"{name}/lot{lot}/{n}.png" for name in ("a", "b") for lot in "123" for n in range(2)))
    summary = take(tmp_path / "s", "folders", "folder", "a/lot1,b/lot1", "a/lot2,b/lot2")
    assert {row["group"]: row["split"] for row in rows_of(summary).values()} == {
        f"{name}/lot{lot}": split for name in "ab" for lot, split in (("1", "val"), ("2", "test"), ("3", "train"))
    }


def test_by_hash_a_group_never_straddles_splits_and_stays_when_data_grows(tmp_path):
    source, file = tmp_path / "s", tmp_path / "l.csv"

    def splits_of(num_boards: int) -> dict[str, set[str]]:
        touch(source, *(f"{board}-{n}.jpg" for board in range(num_boards) for n in range(2)))
        rows = [f"{board}-{n}.jpg,{'xy'[n]},B{board}" for board in range(num_boards) for n in range(2)]
        file.write_text("\n".join(["path,label,board", *rows]))
        found: dict[str, set[str]] = {}
        for row in rows_of(take(source, file, "board")).values():
            found.setdefault(row["group"], set()).add(row["split"])
        return found

    small, large = splits_of(60), splits_of(120)
    assert all(len(splits) == 1 for splits in large.values())
    assert {board: large[board] for board in small} == small


def test_an_image_without_a_group_is_its_own(boards, labels):
    labels.write_text(labels.read_text().replace("open/007-0.jpg,open,007", "open/007-0.jpg,open,  "))
    row = rows_of(by_lot(boards, labels))["open/007-0.jpg"]
    assert (row["group"], row["split"]) == (None, "train")


def test_labels_none_lists_images_alone(boards):
    summary = take(boards, "none")
    assert (summary.num_images, summary.unlabelled, summary.classes) == (18, 18, ())
    assert {(row["labels"], row["split"]) for row in rows_of(summary).values()} == {(None, None)}


def test_what_has_no_partner_is_kept_or_counted_and_said(boards, labels):
    touch(boards, "open/new.jpg", "open/.hidden.jpg", "readme.txt")
    (boards / "short/9-0.jpg").unlink()
    labels.write_text(labels.read_text().replace("open/007-0.jpg,open,", "open/007-0.jpg,,"))
    progress = Lines()
    summary = by_lot(boards, labels, progress=progress)
    assert (summary.num_images, summary.unlabelled) == (18, 2)
    assert (summary.labels_without_image, summary.labels_without_image_examples) == (1, ["short/9-0.jpg"])
    assert summary.ignored == {"hidden": 1, "not an image name": 1}
    assert progress.said == [
        "ignored files: 1 hidden, 1 not an image name (open/.hidden.jpg, readme.txt)",
        "labels without an image: 1 (short/9-0.jpg)",
        "images without a label: 2; they are kept, in no split",
    ]
    assert {row["split"] for row in rows_of(summary).values() if row["labels"] is None} == {None}


def test_paths_may_be_addresses_or_start_with_a_dot(boards, labels):
    first, second = file_uri(str(boards / "open/007-0.jpg")), str(boards / "open/007-1.jpg")
    text = labels.read_text().replace("open/007-0.jpg,", f"{first},").replace("open/007-1.jpg,", f"{second},")
    labels.write_text(text.replace("good/", "./good/"))
    assert by_lot(boards, labels).unlabelled == 0


def test_quotes_commas_and_a_byte_order_mark_are_read_as_csv_means_them(tmp_path):
    touch(tmp_path / "s", *(f"{n}, a.jpg" for n in range(6)))
    rows = [f'"{n}, a.jpg","say ""hi"", {n % 2}",g{n % 3},"two\nlines"' for n in range(6)]
    (tmp_path / "l.csv").write_text("\ufeff" + "\r\n".join(["path,label,part,note", *rows]))
    summary = take(tmp_path / "s", tmp_path / "l.csv", "part", "g1", "g2")
    assert summary.classes == ('say "hi", 0', 'say "hi", 1')
    assert {row["note"] for row in rows_of(summary).values()} == {"two\nlines"}


def test_white_space_around_labels_makes_no_further_class(boards, labels):
    labels.write_text(labels.read_text().replace("0.jpg,open,", "0.jpg, open ,"))
    assert by_lot(boards, labels).classes == CLASSES


def test_a_group_column_may_be_called_split(boards, labels):
    text = labels.read_text().replace("path,label,lot", "path,label,split")
    labels.write_text(text.replace(",08\n", ",validation\n"))
    summary = take(boards, labels, "split", "validation", "9")
    assert summary.counts["val"] == dict.fromkeys(CLASSES, 2)
    assert Manifest.open(summary.manifest).columns == ()


def test_columns_that_differ_in_case_alone_are_both_kept(boards, labels):
    lines = labels.read_text().splitlines()
    labels.write_text("\n".join([lines[0] + ",Lot,URI", *(line + ",x,y" for line in lines[1:])]))
    assert Manifest.open(by_lot(boards, labels).manifest).columns == ("lot", "Lot", "URI")


def test_where_few_groups_leave_a_split_empty_the_mending_is_named(boards, labels):
    message = refusal(boards, labels, "lot")
    assert "is empty (the groups are 007, 08, 9)" in message
    assert "--val-groups and --test-groups" in message


def test_where_a_class_is_missing_from_a_split_its_groups_are_named(boards, labels):
    labels.write_text(labels.read_text().replace(",open,007", ",spur,007"))
    message = refusal(boards, labels, "lot", "007", "9")
    assert "split train has no image of class spur (spur lies in groups 007)" in message


def test_a_class_missing_from_a_chosen_split_is_a_warning(boards, labels):
    labels.write_text(labels.read_text().replace(",open,08", ",short,08"))
    progress = Lines()
    summary = by_lot(boards, labels, progress=progress)
    assert summary.warnings == ["split val has no image of class open (open lies in groups 007, 9)"]
    assert progress.said == [f"warning: {summary.warnings[0]}"]


def test_a_refused_snapshot_leaves_nothing_behind(boards, labels, monkeypatch):
    scratch = boards.parent / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    refusal(boards, labels, "lot")
    assert list(scratch.iterdir()) == []
    assert sorted(path.name for path in boards.parent.iterdir()) == ["boards", "labels.csv", "scratch"]


def test_repeated_paths_are_listed_however_they_are_written(boards, labels):
    with labels.open("a") as file:
        file.write("./open/007-0.jpg,short,007\n")
    assert "more than once: ./open/007-0.jpg, open/007-0.jpg" in refusal(boards, labels)


def test_labels_for_none_of_the_images_are_refused_with_an_example(boards, labels):
    labels.write_text(labels.read_text().replace("/", "\\"))
    message = refusal(boards, labels)
    assert "none of its 18 paths is an image" in message
    assert "good\\007-0.jpg" in message


def test_a_row_without_a_path_is_found(boards, labels):
    labels.write_text(labels.read_text().replace("open/08-1.jpg", ""))
    assert "has a row without a path, near the row of open/08-0.jpg" in refusal(boards, labels)


def test_an_empty_source_says_what_was_there_instead(tmp_path):
    (tmp_path / "s").mkdir()
    assert "holds no images; their names end in .jpg" in refusal(tmp_path / "s")
    touch(tmp_path / "s", "a.txt", "b.txt", ".c.jpg")
    assert "holds no images (1 hidden, 2 not an image name)" in refusal(tmp_path / "s")


def test_folders_without_folders_are_refused(tmp_path):
    touch(tmp_path / "s", "a.jpg")
    assert "has no folder of images for --labels folders" in refusal(tmp_path / "s")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"group": "batch"}, "--group batch is not a column that .*labels.csv has to group by: it has only lot"),
        ({"group": "label"}, "--group label is not a column"),
        ({"val": "08"}, "say which column with --group"),
        (
            {"group": "lot", "val": "8", "test": "9"},
            "--val-groups 8: no labelled image has it; the groups are 007, 08, 9",
        ),
        ({"group": "lot", "val": "9", "test": "9"}, "both name 9"),
    ],
)
def test_a_wrong_group_is_named_with_the_right_ones(boards, labels, options, complaint):
    with pytest.raises(GlintError, match=complaint):
        take(boards, labels, **options)


def test_without_a_label_file_the_choices_of_group_are_named(boards):
    assert "--labels folders has to group by: it has only folder" in refusal(boards, "folders", "lot")
    assert "--labels none has to group by: it has none" in refusal(boards, "none", "lot")


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "is empty; it needs a header"),
        (b"file,label\na.jpg,x\n", "has no column 'path'; its columns are file, label"),
        (b"path;label\na.jpg;x\n", "has no column 'path'; its columns are path;label"),
        (b"path,class\na.jpg,x\n", "has no column 'label'"),
        (b"path,label,lot,lot\na.jpg,x,1,2\n", "more than one column 'lot'"),
        (b"path,label,size\na.jpg,x,1\n", "rename the column 'size'"),
        (b"path,label,target\na.jpg,x,1\n", "rename the column 'target'"),
        (b"path,label\na.jpg,x,1\n", "is not CSV in UTF-8: .*Expected 2 columns, got 3"),
        (b"path,label\na.jpg,\xe9\n", "is not CSV in UTF-8"),
        ("path,label\na.jpg,x\n".encode("utf-16"), "is not CSV in UTF-8"),
        (b"PK\x03\x04\x14\x00\x06\x00\x08\x00\x00\x00!\x00\xdf\xa4", "is not CSV in UTF-8"),
        (b"path,label\n", "not one row"),
    ],
)
def test_a_bad_label_file_gets_one_clear_line(boards, labels, data, complaint):
    labels.write_bytes(data)
    with pytest.raises(GlintError, match=f"--labels .*labels.csv.*{complaint}"):
        take(boards, labels)


def test_a_label_file_that_is_not_there_is_named_with_the_choices(boards, tmp_path):
    assert "absent.csv does not exist; give folders, none or" in refusal(boards, tmp_path / "absent.csv")
    assert f"--labels {tmp_path} cannot be read" in refusal(boards, tmp_path)


def test_nothing_but_a_manifest_is_replaced(boards):
    out = boards.parent / "photo.jpg"
    out.write_bytes(b"precious")
    with pytest.raises(GlintError, match=r"--out would replace a file; .*photo\.jpg is not a manifest"):
        snapshot(Images(), str(boards), out)
    assert out.read_bytes() == b"precious"


def test_the_folder_of_the_manifest_is_made(boards, labels):
    summary = snapshot(Images(), str(boards), boards / "new" / "m.parquet", str(labels), "lot", ("08",), ("9",))
    assert pq.read_metadata(summary.manifest).num_rows == 18


def test_a_folder_that_cannot_be_made_is_named_before_anything_is_listed(boards):
    with pytest.raises(GlintError, match=r"--out .*its folder cannot be made"):
        snapshot(Images(), "nowhere", boards / "good" / "9-0.jpg" / "m.parquet")
    with pytest.raises(GlintError, match=r"--out /proc/m.parquet: the folder /proc cannot be written to"):
        snapshot(Images(), "nowhere", Path("/proc/m.parquet"))


def test_broken_images_are_listed_like_any_other(boards, labels):
    (boards / "open/007-0.jpg").write_bytes(b"")
    (boards / "good/007-0.jpg").write_text("no image at all")
    assert by_lot(boards, labels).num_images == 18


def test_real_boards_have_the_splits_that_their_lots_give(shared, tmp_path):
    data = shared / "data" / "deeppcb"
    val, test = ("50600", "90100"), ("12100", "92000", "44000", "12000")
    summary = snapshot(Images(), str(data), tmp_path / "m.parquet", str(data / "labels.csv"), "lot", val, test)
    assert {split: sum(counts.values()) for split, counts in summary.counts.items()} == {
        "train": 4474,
        "val": 710,
        "test": 1816,
    }
    assert summary.num_images == 7000
    assert len(summary.classes) == 7
    assert "00041" in Manifest.open(summary.manifest).table(["lot"])["lot"].to_pylist()


def test_a_source_may_be_moved_with_its_labels(boards, labels, tmp_path):
    first = by_lot(boards, labels)
    shutil.move(boards, tmp_path / "moved")
    second = by_lot(tmp_path / "moved", labels)
    assert second.counts == first.counts
    assert second.digest != first.digest


def test_a_separator_parts_the_labels_of_an_image_that_may_have_several(boards, labels):
    lines = labels.read_text().splitlines()
    lines[1] = lines[1].replace(",good,", ",good; short,")
    lines[2] = lines[2].replace(",good,", ",;,")
    lines[3] = lines[3].replace(",good,", ",,")
    labels.write_text("\n".join(lines) + "\n")
    summary = take(boards, labels, "lot", "08", "9", separator=";")
    rows = Manifest.open(summary.manifest).table(["uri", "labels"]).to_pylist()
    found = {Path(row["uri"]).name: row["labels"] for row in rows if "/good/" in row["uri"]}
    named = [Path(line.split(",")[0]).name for line in lines[1:5]]
    assert [found[name] for name in named] == [["good", "short"], [], None, ["good"]]
    assert summary.classes == CLASSES
    assert (summary.unlabelled, summary.counts["train"]["short"]) == (1, 3)
    split = Counter(row["split"] for row in Manifest.open(summary.manifest).table(["split"]).to_pylist())
    assert summary.labelled == {name: split[name] for name in ("train", "val", "test")}
    assert sum(summary.labelled.values()) == summary.num_images - 1, "an image with two labels is one"


def test_groups_with_one_of_several_labels_are_found_when_a_split_lacks_a_class(boards, labels):
    text = labels.read_text().replace(",good,", ",good;fine,")
    labels.write_text(
        text.replace("08-0.jpg,good;fine,", "08-0.jpg,fine,").replace("08-1.jpg,good;fine,", "08-1.jpg,fine,")
    )
    summary = take(boards, labels, "lot", "08", "9", separator=";")
    assert [line for line in summary.warnings if "good" in line and "007, 9" in line]
