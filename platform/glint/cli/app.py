"""`glint`: the verbs put together, and what becomes of errors.

Exit codes: 0 done; 2 a mistake of the user's, told in one line; 130 interrupted; 1 anything else: what the gate or the
doctor says no to or a full disk, told in lines, or a bug, with a traceback.
"""

from __future__ import annotations

import errno
import sys
import traceback
from importlib import metadata
from typing import Annotated, cast

import typer

from glint.cli import batch, emulators, keys, store
from glint.cli.classify import classify
from glint.cli.demo import demo
from glint.cli.doctor import doctor
from glint.cli.evaluate import evaluate
from glint.cli.export import export
from glint.cli.interruption import INTERRUPTED, heed_sigterm, leave, say_interrupted
from glint.cli.policy import policy
from glint.cli.promote import promote
from glint.cli.rollback import rollback
from glint.cli.serve import serve
from glint.cli.snapshot import snapshot
from glint.cli.train import train
from glint.cli.tune import tune
from glint.cli.upload import upload
from glint.core.errors import GlintError
from glint.core.threads import is_at_work

BROKEN, MISTAKEN = 1, 2
DENIED, FULL = {errno.EACCES, errno.EPERM, errno.EROFS}, {errno.ENOSPC, errno.EDQUOT}
"""What a file system says of its own accord, and no bug of ours."""
UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[1])
"""What the parser says of a command line; typer keeps the name of this base to itself."""

app = typer.Typer(
    name="glint",
    help="Train image classifiers on labelled images in object storage and serve them, on Ray.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)


def _tell_version(asked: bool) -> None:
    if asked:
        print(metadata.version("glint"))
        raise typer.Exit


@app.callback()
def prepare(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_tell_version, help="Say which glint this is.")
    ] = False,
) -> None:
    """Before any verb, and before what it imports."""
    from glint.settings import mistyped, quieten, read_settings

    for name, meant in mistyped().items():
        print(f"glint: {name} is no setting, and ignored; did you mean {meant}?", file=sys.stderr)
    quieten(read_settings())


for verb in (upload, snapshot, train, tune, evaluate, policy, promote, rollback, export, serve, classify, demo, doctor):
    app.command()(verb)
app.add_typer(batch.app, name="batch")
app.add_typer(store.app, name="store")
app.add_typer(keys.app, name="keys")
app.add_typer(emulators.app, name="emulators")


def main() -> None:
    """Run `glint` and end this process."""
    heed_sigterm()
    code: str | int | None
    try:
        code = _run()
    except SystemExit as ended:
        code = ended.code
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception:
        if not is_at_work():
            raise
        traceback.print_exc()
        code = BROKEN
    leave(code)


def _run() -> int | None:
    """Run the verb, turning the user's mistakes into one line and exit code 2."""
    try:
        code = cast("int | None", app(standalone_mode=False))
    except UsageError as error:
        reason, where = error.format_message().rstrip("."), error.ctx.command_path if error.ctx else "glint"
        if not reason:  # no verb was named: the help has been shown
            return MISTAKEN
        return _refuse(f"{reason} (see {where} --help)")
    except GlintError as error:
        return _refuse(str(error))
    except OSError as error:
        if error.errno in FULL:
            return _refuse(": ".join(filter(None, [error.filename, error.strerror])), BROKEN)
        if error.errno not in DENIED or error.filename is None:
            raise
        return _refuse(f"{error.filename}: {error.strerror}")
    if code == INTERRUPTED:
        say_interrupted(sys.argv[1:])
    return code


def _refuse(reason: str, code: int = MISTAKEN) -> int:
    print(f"glint: {' '.join(reason.split())}", file=sys.stderr)
    return code
