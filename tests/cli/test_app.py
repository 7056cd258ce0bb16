"""The command as a person types it: help, exit codes, JSON and the line that a mistake gets."""

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from glint.cli import app as application
from glint.cli.app import app

GLINT = str(Path(sys.executable).with_name("glint"))
PASSES_ON = "emulators run"
"""What it prints is its command's."""


def verbs(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every verb with its options; those of a group are named with it."""
    for part, found in getattr(command, "commands", {"": command}).items():
        yield from verbs(found, f"{name} {part}".strip()) if part else [(name, found)]


def glint(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GLINT_")}
    return subprocess.run(
        [GLINT, *arguments],
        env=environment | {"GLINT_HOME": str(home), "COLUMNS": "200"},
        cwd=home,
        check=False,
        text=True,
        capture_output=True,
    )


@pytest.mark.parametrize(("verb", "command"), verbs(get_command(app)))
def test_every_verb_has_examples_and_json(verb: str, command: Any) -> None:
    assert f"glint {verb}" in command.help.partition("Examples:")[2]
    assert verb == PASSES_ON or any("--json" in option.opts for option in command.params)


@pytest.mark.parametrize("verb", ["train", "batch results"])
def test_help_shows_them_and_leaves_nothing_behind(verb: str, tmp_path: Path) -> None:
    done = glint(*verb.split(), "--help", home=tmp_path)
    assert done.returncode == 0
    assert f"glint {verb}" in done.stdout.partition("Examples:")[2]
    assert "--json" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_help_imports_no_framework(tmp_path: Path) -> None:
    code = "import sys; from glint.cli.app import app; print({'torch', 'ray', 'mlflow', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty home, but for the registry's database, which takes seconds to make."""
    return tmp_path_factory.mktemp("home")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["train", "--recipe", "none.yaml", "--manifest", "m.parquet"], "glint: --recipe none.yaml cannot be read"),
        (["evaluate", "--model", "models:/a@b", "--manifest", "m.parquet", "--report", "r"], "glint: --manifest"),
        (["promote", "boards", "--version", "1"], "glint: no model 'boards' is registered"),
        (["policy", "boards"], "glint: no model 'boards' is registered"),
        (["rollback", "boards"], "glint: no model 'boards' is registered"),
        (["batch", "run", "--model", "nowhere", "--input", "x"], "glint: --model 'nowhere' must be models:/"),
        (["batch", "results", "none"], "glint: there is no job 'none'"),
        (["serve", "--model", "models:/a@b"], "glint: no model 'a' is registered"),
        (["snapshot", "nowhere", "--out", "m.parquet"], "glint: "),
        (["snapshot", "nowhere"], "glint: Missing option '--out' (see glint snapshot --help)"),
        (["train", "--recip", "x"], "glint: No such option: --recip"),
        (["batch", "rnu"], "glint: No such command 'rnu'. Did you mean 'run'? (see glint batch --help)"),
        (["batch", "results", "job", "--limit", "few"], "glint: Invalid value for '--limit'"),
    ],
)
def test_a_mistake_gets_one_line_and_exit_code_2(arguments: list[str], line: str, home: Path) -> None:
    done = glint(*arguments, home=home)
    assert (done.returncode, done.stdout) == (2, "")
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(line)
    assert "Traceback" not in done.stderr


def test_no_verb_at_all_is_answered_with_the_help_once(tmp_path: Path) -> None:
    done = glint("batch", home=tmp_path)
    assert (done.returncode, done.stdout.count("Usage:"), done.stderr) == (2, 1, "")


def test_it_knows_its_version(tmp_path: Path) -> None:
    done = glint("--version", home=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"{version('glint')}\n")


def test_a_setting_that_is_wrong_gets_one_line(tmp_path: Path) -> None:
    environment = {**os.environ, "GLINT_READ_THREADS": "many"}
    done = subprocess.run([GLINT, "doctor"], env=environment, cwd=tmp_path, check=False, text=True, capture_output=True)
    assert done.returncode == 2
    assert done.stderr.startswith("glint: GLINT_READ_THREADS")


def test_what_the_file_system_refuses_gets_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(number: int) -> None:
        raise OSError(number, os.strerror(number), "/data/weights")

    for number, code in ((errno.ENOSPC, 1), (errno.EACCES, 2)):
        monkeypatch.setattr(application, "app", lambda standalone_mode, number=number: fail(number))
        assert application._run() == code
        assert capsys.readouterr().err == f"glint: /data/weights: {os.strerror(number)}\n"
    monkeypatch.setattr(application, "app", lambda standalone_mode: fail(errno.ENOENT))
    with pytest.raises(FileNotFoundError):
        application._run()


def test_doctor_finds_what_works_and_what_does_not(tmp_path: Path) -> None:
    healthy = glint("doctor", "--json", home=tmp_path)
    found = {finding["what"]: finding["state"] for finding in json.loads(healthy.stdout)["findings"]}
    assert healthy.returncode == 0, healthy.stdout
    assert (found["result store"], found["MLflow"], found["Azure Blob Storage"]) == ("ok", "ok", "absent")
    wrong = {
        "MLFLOW_URI": "http://127.0.0.1:9",
        "BLOB_ACCOUNT": "a",
        "BLOB_ENDPOINT": "https://a/?sig=secret",
    }
    environment = {**os.environ, "GLINT_HOME": str(tmp_path), **{f"GLINT_{name}": one for name, one in wrong.items()}}
    started = time.monotonic()
    broken = subprocess.run([GLINT, "doctor"], env=environment, check=False, text=True, capture_output=True)
    assert broken.returncode == 1
    assert "127.0.0.1:9 does not answer" in broken.stdout
    assert "check GLINT_MLFLOW_URI" in broken.stdout
    assert "GLINT_BLOB_ENDPOINT 'https://a/' must be" in " ".join(broken.stdout.split())
    assert "secret" not in broken.stdout + broken.stderr
    assert time.monotonic() - started < 60
