"""glint upload and glint snapshot of az:// on the command line: JSON for programs, one line for every mistake."""

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from glint.cli.snapshot import snapshot
from glint.cli.upload import upload
from glint.core.errors import GlintError
from glint.core.manifest import Manifest
from glint.emulators.install import install
from glint.emulators.servers import Azurite


@pytest.fixture(scope="module")
def azurite(tmp_path_factory):
    with Azurite(install(Path(sys.prefix) / "emulators"), tmp_path_factory.mktemp("azurite")) as running:
        yield running


@pytest.fixture
def boards(azurite, tmp_path, monkeypatch) -> Path:
    """A folder of two classes, seen from the folder that it lies in; the settings of azurite."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GLINT_BLOB_ACCOUNT", azurite.account)
    monkeypatch.setenv("GLINT_BLOB_ENDPOINT", azurite.endpoint)
    monkeypatch.setenv("GLINT_BLOB_KEY", azurite.key)
    for label in ("good", "open"):
        for number in range(40):
            path = tmp_path / "boards" / label / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"{label} {number}".encode())
    return tmp_path / "boards"


def call(verb, *arguments: str):
    app = typer.Typer()
    app.command()(verb)
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize(
    ("folder", "labels"), [("boards", ""), ("boards/good", " --labels none"), ("listed", " --labels listed/l.csv")]
)
def test_the_snapshot_that_it_suggests_has_the_labels_that_there_are(boards, folder, labels):
    (boards.parent / "listed").mkdir()
    (boards.parent / "listed" / "l.csv").write_text("path,label\nx.jpg,good\n")
    said = " ".join(call(upload, folder, f"az://suggested/{folder}").stdout.split())
    assert f"glint snapshot az://suggested/{folder}{labels} --out manifest.parquet" in said


def test_a_folder_is_uploaded_once_and_then_taken_a_snapshot_of(boards):
    first, second = (json.loads(call(upload, "boards", "az://lines/4", "--json").stdout) for _ in range(2))
    assert (first["uploaded"], first["skipped"], first["bytes"]) == (80, 0, 540)
    assert (second["uploaded"], second["skipped"], second["bytes"]) == (0, 80, 0)
    assert first["seconds"] >= 0
    result = call(snapshot, "az://lines/4", "--out", "m.parquet", "--json")
    assert result.exit_code == 0, result.output
    manifest = Manifest.open("m.parquet")
    assert (manifest.num_rows, manifest.classes) == (80, ("good", "open"))
    assert manifest.table(["uri", "etag"]).to_pylist()[0]["uri"] == "az://lines/4/good/0.jpg"


def test_a_person_is_told_what_was_done_and_what_comes_next(boards):
    (boards / ".DS_Store").write_bytes(b"")
    result = call(upload, "boards", "az://lines/told")
    assert "80 files uploaded" in result.stdout
    assert "left out: 1 hidden" in result.stdout
    assert "glint snapshot az://lines/told" in result.stdout


@pytest.mark.parametrize("verb", [upload, snapshot])
def test_without_an_account_the_setting_is_named(boards, monkeypatch, verb):
    monkeypatch.delenv("GLINT_BLOB_ACCOUNT")
    arguments = ["boards", "az://lines"] if verb is upload else ["az://lines", "--out", "m.parquet"]
    result = call(verb, *arguments)
    assert isinstance(result.exception, GlintError)
    assert "set GLINT_BLOB_ACCOUNT" in str(result.exception)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("GLINT_BLOB_KEY", "c2VjcmV0", "check GLINT_BLOB_KEY"),
        ("GLINT_BLOB_ENDPOINT", "http://127.0.0.1:{port}/x", "does not answer (connection refused)"),
        ("GLINT_BLOB_ENDPOINT", "https://glint.invalid", "does not answer (no such host)"),
    ],
)
def test_a_wrong_setting_is_one_line_and_exit_code_2_within_ten_seconds(boards, monkeypatch, name, value, complaint):
    monkeypatch.setenv(name, value.format(port=closed_port()))
    glint = str(Path(sys.executable).with_name("glint"))
    begun = time.monotonic()
    done = subprocess.run(
        [glint, "snapshot", "az://lines/4", "--out", "m.parquet"], check=False, text=True, capture_output=True
    )
    assert time.monotonic() - begun < 10
    assert done.returncode == 2
    (line,) = (line for line in done.stderr.splitlines() if not line.startswith("listing"))
    assert line.startswith("glint: SOURCE az://lines/4 cannot be listed: ")
    assert complaint in line
    assert name in line
    assert "c2VjcmV0" not in done.stderr


def test_help_shows_examples():
    assert "glint upload boards az://images/line-4" in " ".join(call(upload, "--help").stdout.split())


def test_the_verb_is_described_without_loading_what_does_the_work():
    heavy = "{'azure', 'obstore', 'pyarrow', 'ray', 'torch'} & set(sys.modules)"
    code = f"import sys; sys.path[:] = {sys.path!r}; import glint.cli.upload; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
