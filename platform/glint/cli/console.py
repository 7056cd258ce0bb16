"""What the commands print: results on stdout, everything else on stderr."""

from __future__ import annotations

import functools
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

# Names of files and classes may have brackets, which are no markup.
stdout = Console(soft_wrap=True, markup=False)
stderr = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


class RichProgress:
    """glint.core.progress.Progress as a bar on stderr; plain lines where stderr is no terminal."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None

    def begin(self, stage: str, total: int | None, unit: str) -> None:
        """Show a new bar; a spinner where the total is unknown."""
        self.end()
        self._task = self._progress.add_task(stage, total=total, unit=unit, note="")
        if not self._progress.console.is_terminal:
            self.say(f"{stage} …" if total is None else f"{stage}: {total:,} {unit} …")

    def update(self, done: int, note: str = "") -> None:
        """Move the bar."""
        if self._task is not None:
            self._progress.update(self._task, completed=done, note=note)

    def end(self) -> None:
        """Take the bar away."""
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(line)


class Count(ProgressColumn):
    """How much of how much, where that is known."""

    def render(self, task: Task) -> Text:
        """Such as 4,474/89,480 images."""
        if task.total is None:
            return Text(f"{task.completed:,.0f}" if task.completed else "")
        return Text(f"{task.completed:,.0f}/{task.total:,.0f} {task.fields['unit']}", no_wrap=True)


@contextmanager
def progress() -> Iterator[RichProgress]:
    """Progress on stderr while the block runs."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=12),
        Count(),
        TextColumn("{task.fields[note]}", style="cyan", markup=False),
        TimeRemainingColumn(compact=True),
    )
    bars = Progress(
        *columns,
        console=stderr,
        transient=True,
        disable=not stderr.is_terminal,
        # Else it would give stdout and stderr back at its end as they were at its start, before `start` diverted them.
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with bars:
        yield RichProgress(bars)


def typed(command: str) -> str:
    """A command of glint's as it can be typed here: by its path where the shell does not find it."""
    return f"{'glint' if shutil.which('glint') else Path(sys.executable).with_name('glint')} {command}"


def next_step(command: str) -> str:
    """The line that says what to do after this; names in it that the shell would take apart are to be quoted."""
    return f"next: {typed(command)}"


@functools.cache  # what is stderr by then must not become stdout
def keep_stdout_for_results() -> None:
    """From here on only `emit` and `stdout` write to stdout; what others print there goes to stderr."""
    stdout.file = sys.stdout
    sys.stdout = sys.stderr


def emit(result: BaseModel, as_json: bool, *shown: RenderableType) -> None:
    """Print a result on stdout: as one JSON object, or as what is shown to a person."""
    if as_json:
        stdout.file.write(result.model_dump_json() + "\n")
    else:
        for part in shown:
            stdout.print(part)
    stdout.file.flush()
