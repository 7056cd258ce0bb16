"""The process that scores: takes chunks by number, writes their outcomes, and tells each image that begins and ends.

It may die of any image. What watches it, scoring_process.py, is another process and knows from what it was told which
images it may have died of.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

from glint.core.errors import GlintError, ImageError
from glint.core.job import Chunk, summarise
from glint.core.outcome import Outcome, failed, outcome_id
from glint.core.stores import Bridge
from glint.pipelines.batch_run import CHUNKS_AT_ONCE, BatchRun
from glint.pipelines.scoring import Scored, Scorer, num_cores

ROW_COLUMNS = ("uri", "etag", "size", "labels", "group", "split")


def work(run: BatchRun, connection: Connection) -> None:
    """Score what is asked for, until nobody asks any more."""
    lock = threading.Lock()

    def tell(*message: object) -> None:
        with lock:
            connection.send_bytes(json.dumps(message).encode())

    try:
        chunks = ChunkScorer(run)
    except GlintError as mistake:
        tell("unfit", str(mistake))
        return
    except Exception:  # noqa: BLE001 - the edge of a process: its parent raises it
        tell("broken", traceback.format_exc())
        return
    tell("ready", chunks.threads)
    threads = ThreadPoolExecutor(CHUNKS_AT_ONCE, "glint-chunk")

    def answer(chunk: int, alone: list[int], given: dict[str, list[str]]) -> None:
        try:
            verdicts = {int(row): ImageError(*verdict) for row, verdict in given.items()}
            document, write_s = chunks.score(chunk, alone, verdicts, lambda *told: tell("image", chunk, *told))
        except GlintError as mistake:
            tell("mistake", chunk, str(mistake))
        except Exception:  # noqa: BLE001 - the edge of a process: its parent raises it
            tell("error", chunk, traceback.format_exc())
        else:
            tell("done", chunk, document.model_dump_json(), write_s)

    while True:
        try:
            asked = connection.recv_bytes()
        except EOFError:
            os._exit(0)  # whoever asked has died, and what is half done is to be done by another
        threads.submit(answer, *json.loads(asked))


class ChunkScorer:
    """Scores chunks of a job and writes them; may be called from several threads."""

    def __init__(self, run: BatchRun) -> None:
        self._run = run
        self._bridge = Bridge()
        self._scorer = Scorer(run.open_predictor, run.images, run.options.concurrency)
        self.threads = self._scorer.threads | {"write": CHUNKS_AT_ONCE, "cores": num_cores()}
        opened = self._model = self._scorer.predictor.model
        if (opened.bundle, opened.policy) != (run.model.bundle, run.model.policy):
            raise GlintError(f"{run.model_uri} has become another bundle or policy since the job began")

    def score(
        self, chunk: int, alone: Sequence[int], verdicts: Mapping[int, ImageError], note: Any
    ) -> tuple[Chunk, float]:
        """The document of a chunk, which is written with its outcomes, and how long writing took, seconds.

        The rows `alone` are scored first and one by one, those with a verdict not at all. `note` is told of each row
        that begins (True) or has ended (False).
        """
        started, size = time.perf_counter(), self._run.options.mini_batch_size
        rows = self._run.manifest.rows(chunk * size, (chunk + 1) * size).to_pylist()
        scored = {row: Scored(error=error) for row, error in verdicts.items()}
        rest = [row for row in range(len(rows)) if row not in scored and row not in alone]
        for part in [*([row] for row in alone), rest]:
            scored |= self._score_rows(rows, part, note)
        outcomes = [self._outcome(row, scored[number]) for number, row in enumerate(rows)]
        timings = {"total": time.perf_counter() - started}
        for step in ("read", "decode", "infer", "wait"):
            timings[step] = sum((result.timings_ms or {}).get(step, 0.0) for result in scored.values()) / 1000
        document = summarise(self._run.id, chunk, outcomes, timings, self._run.options.ttl_s)
        writing = time.perf_counter()
        self._bridge.run(self._run.store.put_chunk(document, outcomes))
        return document, time.perf_counter() - writing

    def _score_rows(self, rows: list[dict[str, Any]], numbers: list[int], note: Any) -> dict[int, Scored]:
        uris, etags = [rows[number]["uri"] for number in numbers], [rows[number]["etag"] for number in numbers]
        found = self._scorer.score(uris, etags, lambda place, begins: note(numbers[place], begins))
        return dict(zip(numbers, found, strict=True))

    def _outcome(self, row: dict[str, Any], scored: Scored) -> Outcome:
        if scored.probabilities is None:
            assert scored.error is not None
            prediction = failed(scored.error)
        else:
            prediction = self._scorer.predictor.interpret(scored.probabilities, self._run.options.top_k)
        return Outcome(
            **dict(prediction),
            id=outcome_id(self._run.id, row["uri"], row["etag"]),
            job_id=self._run.id,
            uri=row["uri"],
            etag=row["etag"],
            model=self._model,  # with the engine that runs here, whatever the driver took it for
            group=row["group"],
            columns={key: value for key, value in row.items() if key not in ROW_COLUMNS},
            width=scored.width,
            height=scored.height,
            timings_ms={name: round(value, 3) for name, value in (scored.timings_ms or {}).items()},
        )


def main() -> None:
    """Score for whoever holds the other end of the pipe whose number is the argument, who first sends the run."""
    connection = Connection(int(sys.argv[1]))
    work(connection.recv(), connection)


if __name__ == "__main__":
    main()
