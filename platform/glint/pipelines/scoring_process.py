"""The watchdog of a process that scores: no image may hang or kill more than itself.

The process notes each image that begins and ends in memory that both share (in_flight.py). When it dies, the images
in flight are suspects; when an image takes too long, it is one, and the process is ended. A new process scores each
suspect alone: what dies or overruns again is `failed` or `timed_out` with its reason, and everything else is scored as
usual (scoring_chunk.py).
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from multiprocessing.connection import wait
from queue import SimpleQueue
from typing import Any

import numpy as np

from glint.core.errors import GlintError, StoreError
from glint.pipelines.batch_run import CHUNKS_AT_ONCE, BatchRun
from glint.pipelines.chunk_answers import Decoded, Written
from glint.pipelines.in_flight import SharedMemory
from glint.pipelines.scoring_chunk import AskedChunk

WORKER = "glint.pipelines.scoring_worker"
"""The process that scores, which alone imports what that needs."""
TICK_S = 0.25
MAX_DEATHS = 12
"""Deaths in a row between which not one image ended: it is not the images then."""
MAX_STARTS = 3
"""Deaths in a row before the process was ready."""
MAX_IDLE_DEATHS = 3
"""Deaths over a chunk with no image in flight: it is what is done with the whole of it, such as writing."""

FAILURES: dict[str, type[Exception]] = {"away": StoreError, "mistake": GlintError, "error": RuntimeError}
"""Of a chunk, by what the process says of it."""


class ScoringProcess:
    """Scores chunks in a process of its own, which is replaced when it dies. `score` may be called from threads.

    `apart`: it only decodes them, for others to infer.
    """

    def __init__(self, run: BatchRun, apart: bool = False) -> None:
        self._run = run
        self._apart = apart
        self._options = run.options
        self._lock = threading.Lock()
        self._memory = SharedMemory(CHUNKS_AT_ONCE, self._options.mini_batch_size)
        self._slots = SimpleQueue[int]()
        for slot in range(CHUNKS_AT_ONCE):
            self._slots.put(slot)
        self._asked: list[AskedChunk] = []
        self._deaths = self._false_starts = 0
        self._down_since: float | None = None
        self._down_s = 0.0
        self._broken: Exception | None = None
        self._threads: Future[dict[str, int]] = Future()
        self._woken, self._wake = multiprocessing.Pipe(duplex=False)
        self._closed = False
        self._start()
        self._watchdog = threading.Thread(target=self._watch, name="glint-watchdog", daemon=True)
        self._watchdog.start()

    def threads(self) -> dict[str, int]:
        """How many threads each step has, and `cores`; waits until the process is ready.

        Raises GlintError where the model cannot be opened, RuntimeError for whatever else stands in the way.
        """
        return self._threads.result()

    def score(self, chunk: int) -> Written | Decoded:
        """Score and write a chunk, or decode it, whatever its images do. Raises StoreError for a store that is gone."""
        size, slot = self._options.mini_batch_size, self._slots.get()
        try:
            num_rows = min(size, self._run.manifest.num_rows - chunk * size)
            asked = AskedChunk(chunk, num_rows, self._options, slot, self._memory.chunks[slot])
            asked.rows.clear()
            with self._lock:
                if self._broken is not None:
                    raise self._broken
                self._asked.append(asked)
                self._wake.send_bytes(b"!")
            return asked.written.result()
        finally:
            self._slots.put(slot)

    def close(self) -> None:
        """End the process, with whatever it has in hand; who waits for that gets CancelledError."""
        self._closed = True
        self._wake.send_bytes(b"!")
        self._watchdog.join()

    # All below runs in the watchdog's thread.

    def _start(self) -> None:
        self._connection, its_end = multiprocessing.Pipe()
        descriptors = (its_end.fileno(), self._memory.descriptor)
        # Not by multiprocessing, which would import this process's main module there, Ray with it.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", WORKER, *map(str, descriptors)],
            pass_fds=descriptors,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        its_end.close()
        self._death = os.pidfd_open(self._process.pid)
        self._ready = False
        with suppress(OSError):  # it has died, which the next look finds
            self._connection.send((self._run, self._apart))

    def _watch(self) -> None:
        try:
            while not self._closed:
                self._hand_out()
                wait([self._connection, self._woken, self._death], TICK_S)
                while self._woken.poll():
                    self._woken.recv_bytes()
                alive = self._process.poll() is None  # before its last words are read, or some would be missed
                self._listen()
                if not alive:
                    self._bury()
                elif self._overran(time.monotonic()):
                    self._process.kill()
                    self._replace()
            self._end()
        except Exception as error:  # noqa: BLE001 - the edge of a thread: whoever waits for a chunk is told
            self._give_up(error)

    def _hand_out(self) -> None:
        """Give the process what it may have: chunks with suspects one at a time, others beside each other."""
        with self._lock:
            asked = list(self._asked)
        out = [chunk for chunk in asked if chunk.out_since is not None]
        doubtful = [chunk for chunk in asked if chunk.doubtful]
        if not self._ready or (doubtful and out):
            return
        for chunk in doubtful[:1] or [chunk for chunk in asked if chunk.out_since is None]:
            chunk.out_since = time.monotonic()
            try:
                self._connection.send_bytes(chunk.question())
            except OSError:
                return  # it has died, which the next look finds

    def _listen(self) -> None:
        try:
            while self._connection.poll():
                kind, *message = json.loads(self._connection.recv_bytes())
                self._hear(kind, message)
        except (EOFError, OSError):
            pass  # it has died, which the next look finds

    def _hear(self, kind: str, message: list[object]) -> None:
        if kind == "ready":
            self._ready, self._false_starts = True, 0
            if self._down_since is not None:
                self._down_s, self._down_since = self._down_s + time.monotonic() - self._down_since, None
            if not self._threads.done():
                self._threads.set_result(message[0])  # type: ignore[arg-type]
            return
        if kind in ("unfit", "broken"):
            raise GlintError(str(message[0])) if kind == "unfit" else RuntimeError(str(message[0]))
        chunk = next(chunk for chunk in self._asked if chunk.number == message[0])
        self._deaths = 0
        answer: Written | Decoded | None = None
        if kind == "done":
            document, write_s = message[1:]
            answer = Written(str(document), float(str(write_s)), self._taken_down_s())
        elif kind == "decoded":
            answer = self._decoded(*message)  # type: ignore[arg-type]
        with self._lock:
            self._asked.remove(chunk)
        if answer is None:
            chunk.written.set_exception(FAILURES[kind](str(message[1])))
        else:
            chunk.written.set_result(answer)

    def _decoded(self, chunk: int, images: list[dict[str, Any]], seconds: float, shape: list[int]) -> Decoded:
        """The pixels follow what is said of them; where the process dies of that, the chunk is asked for again."""
        pixels = np.frombuffer(self._connection.recv_bytes(), np.uint8).reshape(shape)
        return Decoded(chunk, images, seconds, pixels, self._taken_down_s())

    def _taken_down_s(self) -> float:
        """What is told with one answer is not told with the next."""
        told, self._down_s = self._down_s, 0.0
        return told

    def _bury(self) -> None:
        """The process has died by itself: of one of the images in flight."""
        self._deaths = 1 if any(chunk.rows.ended() for chunk in self._asked) else self._deaths + 1
        self._false_starts += not self._ready
        if self._false_starts >= MAX_STARTS:
            raise RuntimeError(f"the scoring process {self._cause()}, {MAX_STARTS} times before it was ready")
        if self._deaths >= MAX_DEATHS:
            raise RuntimeError(f"the scoring process {self._cause()}, {MAX_DEATHS} times without one image between")
        if not any(chunk.rows.since() for chunk in self._asked):
            self._count_idle_death()
        for chunk in self._asked:
            chunk.died(self._cause())
        self._replace()

    def _count_idle_death(self) -> None:
        """No image can be suspected, so that what is out would be asked for again without end."""
        for chunk in self._asked:
            chunk.idle_deaths += chunk.out_since is not None
            if chunk.idle_deaths >= MAX_IDLE_DEATHS:
                raise RuntimeError(
                    f"the scoring process {self._cause()}, {MAX_IDLE_DEATHS} times over mini-batch {chunk.number} with "
                    "none of its images in flight"
                )

    def _overran(self, now: float) -> bool:
        overran = [chunk.overran(now) for chunk in self._asked]  # each of them, or a second image would escape
        return any(overran)

    def _replace(self) -> None:
        self._process.wait()  # or it would write of its images when they are forgotten
        self._down_since = self._down_since or time.monotonic()
        for chunk in self._asked:
            chunk.returned()
        self._forget()
        self._start()

    def _forget(self) -> None:
        self._process.wait()
        self._connection.close()
        os.close(self._death)

    def _cause(self) -> str:
        code = self._process.wait()
        if code < 0:
            name = signal.Signals(-code).name
            return f"died by {name}" + (", as when memory runs out" if -code == signal.SIGKILL else "")
        return f"ended with {code}"

    def _end(self) -> None:
        self._process.kill()
        self._forget()
        self._memory.close()
        self._threads.cancel()
        for chunk in self._asked:
            chunk.written.cancel()

    def _give_up(self, error: Exception) -> None:
        self._process.kill()
        self._forget()
        self._memory.close()
        with self._lock:
            self._broken, asked = error, self._asked
            self._asked = []
        if not self._threads.done():
            self._threads.set_exception(error)
        for chunk in asked:
            chunk.written.set_exception(error)
