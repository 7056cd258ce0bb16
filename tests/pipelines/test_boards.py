import csv
import re
from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageStat

from glint.core.errors import GlintError
from glint.pipelines.boards import write_boards

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_every_row_of_the_label_file_names_a_picture_in_its_class_folder(tmp_path: Path) -> None:
    assert write_boards(tmp_path, 12, size=64) == 12
    with (tmp_path / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "label", "board", "lot"]
    assert {row["path"] for row in rows} == {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.jpg")}
    for row in rows:
        assert row["path"].startswith(f"{row['label']}/{row['board']}")
        assert row["board"].startswith(row["lot"])
        with Image.open(tmp_path / row["path"]) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (64, 64))


def test_progress_is_told_after_each_picture(tmp_path: Path) -> None:
    told: list[int] = []
    write_boards(tmp_path, 4, size=64, progress=told.append)
    assert told == [1, 2, 3, 4]


def test_interrupted_call_leaves_no_label_file_and_may_be_repeated(tmp_path: Path) -> None:
    def interrupt(done: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_boards(tmp_path / "a", 5, size=64, progress=interrupt)
    assert not (tmp_path / "a/labels.csv").exists()
    write_boards(tmp_path / "a", 5, size=64)
    write_boards(tmp_path / "b", 5, size=64)
    assert _contents(tmp_path / "a") == _contents(tmp_path / "b")


def test_another_seed_gives_other_pictures_of_the_same_names(tmp_path: Path) -> None:
    write_boards(tmp_path / "a", 3, seed=1, size=64)
    write_boards(tmp_path / "b", 3, seed=2, size=64)
    one, other = _contents(tmp_path / "a"), _contents(tmp_path / "b")
    assert one.keys() == other.keys()
    assert all(one[name] != other[name] for name in one if name.endswith(".jpg"))


def test_folder_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(GlintError, match=r"holds another file, notes\.txt"):
        write_boards(tmp_path, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_documented_code_runs_and_draws_the_documented_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for code in re.findall(r"```python\n(.*?)```", (DOCS / "boards.md").read_text(), flags=re.DOTALL):
        exec(code, {})
    with Image.open(tmp_path / "boards.png") as drawn, Image.open(DOCS / "images/boards.png") as documented:
        assert drawn.size == documented.size
        difference = ImageChops.difference(drawn.convert("RGB"), documented.convert("RGB"))
    assert ImageStat.Stat(difference).mean == pytest.approx([0, 0, 0], abs=3)
    assert len(list((tmp_path / "boards").rglob("*.jpg"))) == 70


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_pictures_that_are_there_already_stay_untouched(tmp_path: Path) -> None:
    write_boards(tmp_path, 7, size=64)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    spoilt = next(path for path in before if path.suffix == ".jpg")
    spoilt.write_bytes(b"cut")
    write_boards(tmp_path, 7, size=64)
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    assert spoilt.read_bytes() != b"cut"
    assert {path for path in before if before[path] != after[path]} == {spoilt}
