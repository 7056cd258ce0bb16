"""glint snapshot on the command line: a table for people, one JSON object for programs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from glint.cli.snapshot import snapshot
from glint.core.errors import GlintError
from glint.core.manifest import Manifest


@pytest.fixture
def boards(tmp_path, monkeypatch) -> Path:
    """Three lots of one image for each of two classes, seen from the folder that they lie in."""
    monkeypatch.chdir(tmp_path)
    rows = ["path,label,lot"]
    for label in ("good", "[red] open"):
        for lot in ("L1", "L2", "L3"):
            path = tmp_path / "boards" / label / f"{lot}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"pixels")
            rows.append(f"{label}/{lot}.jpg,{label},{lot}")
    (tmp_path / "boards" / "labels.csv").write_text("\n".join(rows))
    return tmp_path


def call(*more: str):
    app = typer.Typer()
    app.command()(snapshot)
    named = ["--group", "lot", "--val-groups", "L2, ", "--test-groups", "L3"]
    return CliRunner().invoke(app, ["boards", "--labels", "boards/labels.csv", *named, "--out", "m.parquet", *more])


def test_a_person_sees_the_counts_for_each_class_and_split(boards):
    result = call()
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[:4] == [
        ["class", "train", "val", "test"],
        ["[red]", "open", "1", "1", "1"],
        ["good", "1", "1", "1"],
        ["all", "images", "2", "2", "2"],
    ]
    assert f"manifest: {boards / 'm.parquet'}" in result.stdout
    assert "ignored files: 1 not an image name (labels.csv)" in result.stderr


def test_a_program_gets_one_json_object_and_nothing_else(boards):
    result = call("--json")
    summary = json.loads(result.stdout)
    manifest = Manifest.open("m.parquet")
    assert (summary["manifest"], summary["digest"]) == (str(manifest.path), manifest.digest)
    assert summary["counts"]["val"] == {"[red] open": 1, "good": 1}


def test_a_mistake_reaches_the_command_line_as_a_glint_error(boards):
    result = call("--group", "lots")
    assert isinstance(result.exception, GlintError)
    assert "--group lots" in str(result.exception)
    assert not (boards / "m.parquet").exists()


def test_help_shows_examples(boards):
    assert "glint snapshot boards --labels boards/labels.csv" in " ".join(call("--help").stdout.split())


def test_the_verb_is_described_without_loading_what_does_the_work():
    heavy = "{'duckdb', 'obstore', 'pyarrow', 'ray', 'torch'} & set(sys.modules)"
    code = f"import sys; sys.path[:] = {sys.path!r}; import glint.cli.snapshot; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
