"""What is said on Ctrl-C is true of the verb, and can be typed."""

import subprocess
import sys

import pytest
from typer.main import get_command

from glint.cli.app import app
from glint.cli.interruption import CONTINUED, kept_on_interruption, say_interrupted


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["evaluate", "--report", "r"], "glint: interrupted"),
        (["serve"], "glint: interrupted"),
        (["batch", "results", "job"], "glint: interrupted"),
        (["batch", "run", "--input", "x"], "glint: interrupted; the same command does what is left"),
        (["upload", "boards", "az://c"], "glint: interrupted; the same command goes on with the files that are left"),
        ([], "glint: interrupted"),
    ],
)
def test_only_a_verb_that_goes_on_says_so(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    say_interrupted(arguments)
    assert capsys.readouterr().err == f"{line}\n"


def test_verbs_that_go_on_are_verbs() -> None:
    found = get_command(app).commands  # type: ignore[attr-defined]
    for verb in CONTINUED:
        name, _, rest = verb.partition(" ")
        assert not rest or rest in found[name].commands
        assert name in found


@pytest.mark.parametrize(
    ("kept", "end"),
    [
        ("epoch 3 of 5 is", "glint train --recipe 'my recipe.yaml' --manifest m.parquet goes on from there\n"),
        (None, "glint: interrupted; nothing is kept yet\n"),
    ],
)
def test_what_is_kept_is_said_with_a_command_that_does_not_delete_it(
    kept: str | None, end: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["glint", "train", "--recipe", "my recipe.yaml", "--fresh", "--manifest", "m.parquet"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended, kept_on_interruption(lambda: kept):
        raise KeyboardInterrupt
    said = capsys.readouterr().err
    assert (ended.value.code, said.endswith(end)) == (130, True)
    assert kept is None or said.startswith("glint: interrupted; epoch 3 of 5 is kept; ")


FAILS_WHILE_AT_WORK = """
import threading

from glint.cli import app
from glint.core.threads import in_thread


def fail():
    {raised}


app._run = lambda: in_thread(threading.Event().wait, fail)
app.main()
"""


@pytest.mark.parametrize(
    ("raised", "code", "said"), [("raise OSError('gone')", 1, "OSError: gone"), ("raise KeyboardInterrupt", 130, "")]
)
def test_what_goes_wrong_while_a_thread_is_at_work_is_told_and_ends_the_process(
    raised: str, code: int, said: str
) -> None:
    script = FAILS_WHILE_AT_WORK.format(raised=raised)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.rpartition("Traceback")[2].strip().rpartition("\n")[2]) == (code, said)
