"""Work in a thread of its own, so that the main one stays free for Ctrl-C."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

LOOK_EVERY_S = 0.5
NAME = "glint-work"
T = TypeVar("T")


def in_thread(work: Callable[[], T], meanwhile: Callable[[], None] = lambda: None) -> T:
    """What `work` returns or raises, in a thread of its own, while this one does something every half second.

    This thread stays free for Ctrl-C, which ends the wait at once: Ray Train and Ray Tune would take the signal for
    themselves in the main thread, and exit without a word or wait. The work is not ended by it: see `is_at_work`.
    """
    done: Future[T] = Future()
    threading.Thread(target=_settle, args=(done, work), name=NAME, daemon=True).start()
    while not wait([done], LOOK_EVERY_S).done:
        meanwhile()
    return done.result()


def is_at_work() -> bool:
    """Whether such a thread goes on, nobody waiting for it any more."""
    return any(thread.name == NAME for thread in threading.enumerate())


def _settle(done: Future[T], work: Callable[[], T]) -> None:
    try:
        done.set_result(work())
    except BaseException as error:  # noqa: BLE001 - the edge of a thread; the waiting one raises it
        done.set_exception(error)
