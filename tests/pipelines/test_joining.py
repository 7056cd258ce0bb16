import os
import signal
import threading

import duckdb
import pytest

from glint.pipelines.joining import interruptible

MINUTES = "SELECT sum(a.range * b.range) FROM range(1000000) a, range(1000000) b"


def test_ctrl_c_during_a_statement_is_an_interruption() -> None:
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        with pytest.raises(KeyboardInterrupt), interruptible(), duckdb.connect() as connection:
            connection.execute(MINUTES)
    finally:
        signal.signal(signal.SIGINT, handler)


def test_other_failures_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="something else"), interruptible():
        raise RuntimeError("something else")
