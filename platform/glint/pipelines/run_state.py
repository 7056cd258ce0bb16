"""What a training run has written down in its directory: what it is, and how far it came."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from glint.core.errors import GlintError
from glint.core.locks import locked
from glint.core.whole import write_whole

RUN = "run.json"
"""What the run is: the digests of its recipe and manifest, and what identifies its weights."""
SNAPSHOT = "checkpoint_manager_snapshot.json"
"""Of Ray Train's: which checkpoints there are."""


@contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """While no other process works on the run in a directory; raises GlintError where one does.

    The lock lies beside the directory, which --fresh removes. On a file system without locks there is none.
    """
    with ExitStack() as held:
        try:
            held.enter_context(locked(directory.with_name(f".{directory.name}.lock"), wait=False))
        except BlockingIOError:
            busy = f"{directory.name} is being worked on by another process; wait for it, or end it"
            raise GlintError(busy) from None
        except OSError:
            pass
        yield


def check_identity(directory: Path, identity: Mapping[str, str]) -> None:
    """Raise GlintError where the run in a directory was begun with something else; look at the parts given alone."""
    if not (directory / RUN).exists():
        return
    before: dict[str, str] = json.loads((directory / RUN).read_bytes())
    other = [f"{part} ({before[part][:12]}, not {now[:12]})" for part, now in identity.items() if before[part] != now]
    if other:
        raise GlintError(
            f"--name {directory.name!r} is a run with other {' and '.join(other)}; choose another --name, or start it "
            "over with --fresh"
        )


def write_identity(directory: Path, identity: Mapping[str, str]) -> None:
    """Write down what the run in a directory is."""
    directory.mkdir(parents=True, exist_ok=True)
    write_whole(directory / RUN, json.dumps(dict(identity), indent=2) + "\n")


def last_epoch(directory: Path) -> int | None:
    """The number of the last epoch whose checkpoint is kept, from 1 on; 0 = the frozen phase, None = nothing yet."""
    try:
        latest = json.loads((directory / SNAPSHOT).read_bytes())["latest_checkpoint_result"]
    except FileNotFoundError:
        return None
    return int(latest["checkpoint_dir_name"].removeprefix("epoch_")) if latest else None
