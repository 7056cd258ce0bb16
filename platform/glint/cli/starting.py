"""Starting Ray for a verb, with what its native code has to say kept in a file and what it prints off stdout."""

from __future__ import annotations

import os
import sys

from glint.cli.console import keep_stdout_for_results
from glint.core.progress import Progress
from glint.settings import Settings
from glint.wiring import start_ray


def start(settings: Settings, told: Progress, with_jobs: bool = False, serve_at: str | None = None) -> None:
    """Start or join Ray, telling so; the rest is as for `start_ray`."""
    told.begin("starting Ray", None, "")
    _divert_native_messages(settings)
    keep_stdout_for_results()  # Ray prints warnings of its daemons there, on a busy machine alone
    start_ray(settings, with_jobs, serve_at)
    told.end()


def _divert_native_messages(settings: Settings) -> None:
    """Leave the terminal to Python.

    Ray's core writes there, for each actor pool of Ray Data, an error line that is no error. From here on what native
    code writes to file descriptor 2 goes to logs/native.log under GLINT_HOME; progress and tracebacks stay.
    """
    log = settings.home_path / "logs" / "native.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stderr.flush()
    terminal = os.dup(2)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 2)
    sys.stderr = os.fdopen(terminal, "w", buffering=1, encoding=sys.stderr.encoding, errors=sys.stderr.errors)
