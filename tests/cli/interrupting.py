"""Ctrl-C and SIGTERM for the tests of verbs: a command is interrupted once it has said something."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

GLINT = str(Path(sys.executable).with_name("glint"))


def interrupted(command: list[str], home: Path, after: str, how: signal.Signals = signal.SIGINT) -> str:
    """Run `glint command` until a line on stderr begins with `after`, interrupt it; returns what it said from then on.

    It must end with 130.
    """
    process = subprocess.Popen(
        [GLINT, *command],
        env=os.environ | {"GLINT_HOME": str(home)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Whoever runs the tests in the background ignores Ctrl-C, and the command would inherit that.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if line.startswith(after):
            break
    process.send_signal(how)
    _, rest = process.communicate(timeout=120)
    assert process.returncode == 130, "".join(said) + rest
    return rest


def again(command: list[str], home: Path) -> subprocess.CompletedProcess[str]:
    """Run `glint command` to its end."""
    environment = os.environ | {"GLINT_HOME": str(home)}
    return subprocess.run([GLINT, *command], env=environment, check=False, text=True, capture_output=True)
