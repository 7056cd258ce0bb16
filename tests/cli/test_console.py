"""What goes to stdout, and what does not."""

import json
import os
import pty
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from glint.cli.console import next_step

CODE = """
from pydantic import BaseModel
from glint.cli.console import emit, keep_stdout_for_results

class Answer(BaseModel):
    value: int

keep_stdout_for_results()
keep_stdout_for_results()
print("a warning that Ray prints")
emit(Answer(value=1), True)
emit(Answer(value=2), False, "for a person")
"""


def test_only_results_go_to_stdout_once_ray_may_print() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], check=True, capture_output=True, text=True)
    first, second = done.stdout.splitlines()
    assert json.loads(first) == {"value": 1}
    assert second == "for a person"
    assert done.stderr.splitlines() == ["a warning that Ray prints"]


ON_A_TERMINAL = """
import os, sys
from glint.cli import starting
from glint.cli.console import progress
from glint.settings import Settings

starting.start_ray = lambda *_: None
with progress() as told:
    starting.start(Settings(), told)
    os.write(2, b"native code\\n")
    print("a warning that Ray prints")
    told.begin("training", 10, "images")
    told.say("epoch 1")
print("printed by Ray as it ends")
print("glint: a mistake", file=sys.stderr)
"""


def test_a_terminal_shows_all_but_what_native_code_says_also_after_a_progress_bar(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    environment = os.environ | {"GLINT_HOME": str(tmp_path), "TERM": "xterm"}
    command = [sys.executable, "-c", ON_A_TERMINAL]
    done = subprocess.run(command, env=environment, stderr=theirs, stdout=subprocess.PIPE, check=True, text=True)
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # how a terminal ends whose program has
        while part := os.read(ours, 1024):
            shown += part
    os.close(ours)
    for line in ("a warning that Ray prints", "epoch 1", "printed by Ray as it ends", "glint: a mistake"):
        assert line in shown.decode()
    assert done.stdout == "", "that is for results"
    assert (tmp_path / "logs" / "native.log").read_bytes() == b"native code\n"


def test_names_with_brackets_are_shown_as_they_are() -> None:
    code = """
from glint.cli.console import stdout
from glint.cli.tables import fields, rows
stdout.print("[minor]")
stdout.print(rows(["file"], [["az://c/a[/b].png"], ["az://c/scan[front].png"]]))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["[minor]", "file", "az://c/a[/b].png", "az://c/scan[front].png"]


def test_what_to_do_next_can_be_typed_as_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = Path(sys.executable).parent
    monkeypatch.setenv("PATH", str(scripts))
    assert next_step("batch list") == "next: glint batch list"
    monkeypatch.setenv("PATH", "")
    assert next_step("batch list") == f"next: {scripts}/glint batch list"
