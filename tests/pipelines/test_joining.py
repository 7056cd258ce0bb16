import subprocess
import sys

import pytest

from glint.pipelines.joining import interruptible

INTERRUPTED = """
import os, signal, threading
import duckdb
from glint.pipelines.joining import interruptible
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
try:
    # With one thread, for while others work DuckDB looks at signals when they are done.
    with interruptible(), duckdb.connect(config={"threads": 1}) as connection:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        connection.execute("SELECT sum(a.range * b.range) FROM range(1000000) a, range(1000000) b")
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_during_a_statement_is_an_interruption() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], check=False, text=True, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr


def test_other_failures_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="something else"), interruptible():
        raise RuntimeError("something else")
