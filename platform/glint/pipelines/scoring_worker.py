"""The process that scores: takes chunks by number, writes their outcomes, and notes each image that begins and ends.

Where a job decodes apart, it hands over pixels instead. It may die of any image. What watches it, scoring_process.py,
is another process and knows from these notes which images it may have died of.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

import torch

from glint.core.errors import GlintError, ImageError, StoreError
from glint.pipelines.batch_run import CHUNKS_AT_ONCE, BatchRun
from glint.pipelines.chunk_answers import Decoded, Written
from glint.pipelines.chunk_writer import ChunkWriter
from glint.pipelines.in_flight import InFlight, opened
from glint.pipelines.scoring import Decoder, Notes, Scored, Scorer
from glint.vision.engines.engine import num_cores


def work(run: BatchRun, apart: bool, connection: Connection, in_flight: list[InFlight]) -> None:
    """Score what is asked for, or decode it where inferring is apart, until nobody asks any more."""
    tell = _teller(connection)
    chunks = _opened(run, apart, tell)
    if chunks is None:
        return
    tell("ready", chunks.threads)
    threads = ThreadPoolExecutor(CHUNKS_AT_ONCE, "glint-chunk")
    while True:
        try:
            asked = connection.recv_bytes()
        except EOFError:
            os._exit(0)  # whoever asked has died, and what is half done is to be done by another
        chunk, slot, *known = json.loads(asked)
        threads.submit(_answer, chunks, tell, in_flight[slot], chunk, *known)


def _teller(connection: Connection) -> Callable[..., None]:
    """Sends a message as JSON, with pixels behind it where there are any; for several threads."""
    lock = threading.Lock()

    def tell(*message: object, pixels: bytes | None = None) -> None:
        with lock:
            connection.send_bytes(json.dumps(message).encode())
            if pixels is not None:
                connection.send_bytes(pixels)

    return tell


def _opened(run: BatchRun, apart: bool, tell: Callable[..., None]) -> ChunkScorer | ChunkDecoder | None:
    """What does the work; None where it cannot be opened, which is told."""
    try:
        return ChunkDecoder(run) if apart else ChunkScorer(run)
    except GlintError as mistake:
        tell("unfit", str(mistake))
    except Exception:  # noqa: BLE001 - the edge of a process: its parent raises it
        tell("broken", traceback.format_exc())
    return None


def _answer(
    chunks: ChunkScorer | ChunkDecoder,
    tell: Callable[..., None],
    rows: InFlight,
    chunk: int,
    alone: list[int],
    given: dict[str, list[str]],
) -> None:
    """Do a chunk and tell how it ended."""
    try:
        verdicts = {int(row): ImageError(*verdict) for row, verdict in given.items()}
        done = chunks.score(chunk, alone, verdicts, rows)
    except GlintError as mistake:
        tell("away" if isinstance(mistake, StoreError) else "mistake", chunk, str(mistake))
    except Exception:  # noqa: BLE001 - the edge of a process: its parent raises it
        tell("error", chunk, traceback.format_exc())
    else:
        if isinstance(done, Written):
            tell("done", chunk, done.document, done.write_s)
        else:
            tell("decoded", chunk, done.images, done.seconds, done.pixels.shape, pixels=done.pixels.tobytes())


class ChunkScorer:
    """Scores chunks of a job and writes them; may be called from several threads."""

    def __init__(self, run: BatchRun) -> None:
        self._run = run
        scorer = Scorer(run.open_predictor, run.images, run.options.concurrency)
        self._writer, self._scorer = ChunkWriter(run, scorer.predictor), scorer
        self.threads = scorer.threads | {"write": CHUNKS_AT_ONCE, "cores": num_cores()}

    def score(self, chunk: int, alone: Sequence[int], verdicts: Mapping[int, ImageError], notes: Notes) -> Written:
        """The chunk's document, which is written with its outcomes.

        The rows `alone` are scored first and one by one, those with a verdict not at all. `notes` are told of each.
        """
        began, rows = time.perf_counter(), self._run.chunk_rows(chunk)
        scored = score_rows(self._scorer, rows, alone, verdicts, notes)
        return self._writer.write(chunk, rows, scored, time.perf_counter() - began)


class ChunkDecoder:
    """Decodes chunks of a job, for others to infer; may be called from several threads."""

    def __init__(self, run: BatchRun) -> None:
        self._run = run
        preparer = run.preparer()
        if preparer.bundle.digest != run.model.bundle:
            raise GlintError(f"{run.model_uri} has become another bundle since the job began")
        self._decoder = Decoder(preparer, run.images, run.options.concurrency)
        self.threads = self._decoder.threads | {"cores": num_cores()}

    def score(self, chunk: int, alone: Sequence[int], verdicts: Mapping[int, ImageError], notes: Notes) -> Decoded:
        """The chunk's pixels, and what was wrong with the rest; arguments as of ChunkScorer.score."""
        began, rows = time.perf_counter(), self._run.chunk_rows(chunk)
        found = score_rows(self._decoder, rows, alone, verdicts, notes)
        scored = [found[place] for place in range(len(rows))]
        pixels = [row.pixels for row in scored if row.pixels is not None]
        stacked = torch.stack(pixels) if pixels else torch.zeros((0, 3, 1, 1), dtype=torch.uint8)
        return Decoded(chunk, [_told(row) for row in scored], time.perf_counter() - began, stacked.numpy())


def score_rows(
    decoder: Decoder,
    rows: list[dict[str, Any]],
    alone: Sequence[int],
    verdicts: Mapping[int, ImageError],
    notes: Notes,
) -> dict[int, Scored]:
    """What became of each row of a chunk, by its place: those `alone` first and one by one, the rest together."""
    scored = {row: Scored(error=error) for row, error in verdicts.items()}
    rest = [row for row in range(len(rows)) if row not in scored and row not in alone]
    for part in [*([row] for row in alone), rest]:
        uris, etags = [rows[row]["uri"] for row in part], [rows[row]["etag"] for row in part]
        scored |= dict(zip(part, decoder.score(uris, etags, notes, part), strict=True))
    return scored


def _told(scored: Scored) -> dict[str, Any]:
    """An image without its pixels, as `Decoded.images` has it."""
    error = scored.error
    return {
        "error": None if error is None else [error.status, error.type, str(error)],
        "width": scored.width,
        "height": scored.height,
        "timings_ms": scored.timings_ms,
    }


def main() -> None:
    """Work for whoever holds the other end of the pipe that is the first argument, and first sends the run.

    The second one is the SharedMemory of what is in flight.
    """
    pipe, memory = map(int, sys.argv[1:])
    connection = Connection(pipe)
    run, apart = connection.recv()
    work(run, apart, connection, opened(memory, run.options.mini_batch_size))


if __name__ == "__main__":
    main()
