"""What Ctrl-C or SIGTERM leaves, told in one line that is true of the verb."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from glint.core.threads import is_at_work

INTERRUPTED = 130
"""What typer makes of Ctrl-C too: 128 + SIGINT, as shells have it."""
CONTINUED = {
    "upload": "the same command goes on with the files that are left",
    "snapshot": "the same command goes on with a listing of az://, and begins any other again",
    "batch run": "the same command does what is left",
    "demo": "the same command does what is left",
}
"""Verbs that go on where they stopped, and what to say of them."""


def heed_sigterm() -> None:
    """Have SIGTERM, which a service manager or a cluster sends, end this process as Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def leave(code: str | int | None) -> NoReturn:
    """End this process: where a thread is still at work in Ray without an orderly end, in which it would crash."""
    if not is_at_work():
        sys.exit(code)
    for impatience in (signal.SIGINT, signal.SIGTERM):
        signal.signal(impatience, signal.SIG_IGN)
    try:
        from glint.adapters.ray_start import abandon

        try:
            sys.stdout.flush()
        finally:
            abandon()
        sys.stderr.flush()
    except Exception:  # noqa: BLE001 - the process's edge
        traceback.print_exc()
    finally:
        os._exit(code if isinstance(code, int) else int(code is not None))


def say_interrupted(arguments: list[str]) -> None:
    """Say on stderr that the verb of a command line was interrupted, and what the same command would do now."""
    kept = CONTINUED.get(arguments[0]) or CONTINUED.get(" ".join(arguments[:2])) if arguments else None
    print(f"glint: interrupted{f'; {kept}' if kept else ''}", file=sys.stderr)


@contextmanager
def kept_on_interruption(kept: Callable[[], str | None]) -> Iterator[None]:
    """Where an interruption ends the block, say what is `kept` and the command that goes on, and exit with 130.

    None = nothing yet. --fresh is left out of that command: it would delete what is kept.
    """
    from glint.cli.console import typed

    try:
        yield
    except KeyboardInterrupt:
        found = kept()
        command = typed(shlex.join(part for part in sys.argv[1:] if part != "--fresh"))
        left = f"{found} kept; {command} goes on from there" if found else "nothing is kept yet"
        print(f"glint: interrupted; {left}", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
