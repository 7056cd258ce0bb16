"""What goes to stdout, and what does not."""

import json
import subprocess
import sys
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


def test_what_to_do_next_can_be_typed_as_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = Path(sys.executable).parent
    monkeypatch.setenv("PATH", str(scripts))
    assert next_step("batch list") == "next: glint batch list"
    monkeypatch.setenv("PATH", "")
    assert next_step("batch list") == f"next: {scripts}/glint batch list"
