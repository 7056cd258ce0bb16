"""A snapshot of blobs that was interrupted goes on where its listing stood, and ends as if nothing had been."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import uuid
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.azure.test_blob_images import secrets

from glint.adapters.blob_account import BlobAccount
from glint.adapters.blob_admin import open_service
from glint.adapters.images import Images
from glint.core.errors import GlintError
from glint.core.progress import Silent
from glint.emulators.servers import Azurite
from glint.pipelines import resuming
from glint.pipelines import snapshot as snapshotting
from glint.pipelines.snapshot import Summary, snapshot

NAMES = [f"{('good', 'open')[number % 2]}/lot{number % 3}/{number:02}.jpg" for number in range(40)] + ["readme.txt"]
AT_ONCE = 7
SPLIT: dict[str, Any] = {
    "group": "folder",
    "val_groups": ["good/lot1", "open/lot1"],
    "test_groups": ["good/lot2", "open/lot2"],
}


class Told(Silent):
    """Keeps what is said, and interrupts once so many images are listed."""

    def __init__(self, interrupt_at: int | None = None, how: signal.Signals = signal.SIGINT) -> None:
        self.lines: list[str] = []
        self.interrupt_at = interrupt_at
        self.how = how

    def update(self, done: int, note: str = "") -> None:
        if self.interrupt_at is not None and done >= self.interrupt_at:
            os.kill(os.getpid(), self.how)

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def images(azurite: Azurite) -> Images:
    return Images(azurite.account, azurite.endpoint, partial(secrets, account_key=azurite.key))


@pytest.fixture
def source(images: Images, azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> str:
    """A container of its own, listed some blobs at a time."""
    monkeypatch.setattr(snapshotting, "BATCH_ROWS", AT_ONCE)
    container = f"resumed-{uuid.uuid4().hex[:8]}"
    service = open_service(BlobAccount(azurite.account, azurite.endpoint, images.credentials))
    client = service.create_container(container)
    for name in NAMES:
        client.upload_blob(name, name.encode())
    return f"az://{container}"


def interrupt(images: Images, source: str, out: Path, at: int = 14, **options: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        snapshot(images, source, out, progress=Told(at), **(options or SPLIT))
    assert not out.exists()


def take(images: Images, source: str, out: Path, **options: Any) -> tuple[Summary, list[str]]:
    told = Told()
    return snapshot(images, source, out, progress=told, **(options or SPLIT)), [
        line for line in told.lines if "resumed" in line
    ]


def left(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.suffix != ".parquet"]


@pytest.fixture
def whole(images: Images, source: str, tmp_path_factory: pytest.TempPathFactory) -> Summary:
    return snapshot(images, source, tmp_path_factory.mktemp("whole") / "m.parquet", **SPLIT)


def test_after_ctrl_c_the_same_command_goes_on(images: Images, source: str, whole: Summary, tmp_path: Path) -> None:
    interrupt(images, source, tmp_path / "m.parquet")
    again, lines = take(images, source, tmp_path / "m.parquet")
    assert len(lines) == 1
    assert lines[0].endswith("was interrupted: resumed after 14 images")
    assert again.model_copy(update={"manifest": whole.manifest}) == whole
    assert left(tmp_path) == []


def test_a_second_interruption_loses_nothing_either(
    images: Images, source: str, whole: Summary, tmp_path: Path
) -> None:
    interrupt(images, source, tmp_path / "m.parquet")
    interrupt(images, source, tmp_path / "m.parquet", at=28)
    again, lines = take(images, source, tmp_path / "m.parquet")
    assert lines[0].endswith("resumed after 28 images")
    assert (again.digest, again.ignored) == (whole.digest, whole.ignored)


KILLED = """
import signal, sys
from functools import partial
from pathlib import Path
from tests.azure.test_blob_images import secrets
from tests.azure.test_snapshot_resumes import AT_ONCE, SPLIT, Told
from glint.adapters.images import Images
from glint.pipelines import snapshot
snapshot.BATCH_ROWS = AT_ONCE
account, endpoint, key, source, out = sys.argv[1:]
images = Images(account, endpoint, partial(secrets, account_key=key))
snapshot.snapshot(images, source, Path(out), progress=Told(21, signal.SIGKILL), **SPLIT)
"""


def test_after_kill_9_the_same_command_goes_on(
    images: Images, azurite: Azurite, source: str, whole: Summary, tmp_path: Path
) -> None:
    out = tmp_path / "m.parquet"
    place = (azurite.account, azurite.endpoint, azurite.key, source, str(out))
    killed = subprocess.run([sys.executable, "-c", KILLED, *place], check=False, cwd=Path(__file__).parents[2])
    assert killed.returncode == -signal.SIGKILL
    again, lines = take(images, source, out)
    assert lines[0].endswith("resumed after 21 images")
    assert again.digest == whole.digest
    assert left(tmp_path) == []


def test_labels_of_a_file_are_read_anew(images: Images, source: str, tmp_path: Path) -> None:
    file = tmp_path / "labels.parquet"  # a name that `left` passes over
    options: dict[str, Any] = {"labels": str(file), "group": "lot", "val_groups": ["lot1"], "test_groups": ["lot2"]}
    file.write_text("path,label,lot\ngood/lot0/00.jpg,wrong,lot0\n")
    interrupt(images, source, tmp_path / "m.parquet", **options)
    rows = (f"{name},right,{name.split('/')[1]}\n" for name in NAMES[:30])
    file.write_text("path,label,lot\n" + "".join(rows))
    again, lines = take(images, source, tmp_path / "m.parquet", **options)
    assert len(lines) == 1
    assert (again.classes, again.unlabelled, again.num_images) == (("right",), 10, 40)


def test_a_listing_for_other_arguments_begins_anew(images: Images, source: str, whole: Summary, tmp_path: Path) -> None:
    interrupt(images, source, tmp_path / "m.parquet", labels="none")
    again, lines = take(images, source, tmp_path / "m.parquet")
    assert (again.digest, lines, left(tmp_path)) == (whole.digest, [], [])


def test_an_old_listing_begins_anew(
    images: Images, source: str, whole: Summary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(images, source, tmp_path / "m.parquet")
    monkeypatch.setattr(resuming, "MAX_AGE", timedelta())
    again, lines = take(images, source, tmp_path / "m.parquet")
    assert (again.digest, lines, left(tmp_path)) == (whole.digest, [], [])


def test_a_listing_that_somebody_else_goes_on_with_is_left_to_them(
    images: Images, source: str, whole: Summary, tmp_path: Path
) -> None:
    interrupt(images, source, tmp_path / "m.parquet")
    held = os.open(tmp_path / ".m.parquet.listing", os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    again, lines = take(images, source, tmp_path / "m.parquet")
    assert (again.digest, lines) == (whole.digest, [])
    os.close(held)
    assert take(images, source, tmp_path / "m.parquet")[1]


def test_where_the_last_blob_is_gone_it_says_so_and_begins_anew_the_next_time(
    images: Images, azurite: Azurite, source: str, tmp_path: Path
) -> None:
    interrupt(images, source, tmp_path / "m.parquet")
    service = open_service(BlobAccount(azurite.account, azurite.endpoint, images.credentials))
    service.get_container_client(source.removeprefix("az://")).delete_blob(sorted(NAMES)[13])
    with pytest.raises(GlintError, match=r"changed while it was listed: .* take the snapshot again"):
        take(images, source, tmp_path / "m.parquet")
    assert left(tmp_path) == []
    assert take(images, source, tmp_path / "m.parquet")[0].num_images == 39


def test_a_mistake_leaves_nothing_to_go_on_with(images: Images, source: str, tmp_path: Path) -> None:
    labels = tmp_path / "labels.parquet"
    labels.write_text("path,label\nnone.jpg,wrong\n")
    for wrong in ({"source": "az://no-such-container"}, {"source": source, "labels": str(labels)}):
        with pytest.raises(GlintError):
            snapshot(images, out=tmp_path / "m.parquet", **wrong)
        assert left(tmp_path) == []
