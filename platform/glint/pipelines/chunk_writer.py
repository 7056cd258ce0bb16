"""The end of a chunk: what was scored becomes outcomes, which are written with the chunk's document."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from glint.core.errors import GlintError
from glint.core.job import summarise
from glint.core.outcome import Outcome, failed, outcome_id
from glint.core.stores import Bridge
from glint.pipelines.batch_run import BatchRun
from glint.pipelines.chunk_answers import Written
from glint.pipelines.scoring import Scored
from glint.vision.predictor import Predictor

ROW_COLUMNS = ("uri", "etag", "size", "labels", "group", "split")


class ChunkWriter:
    """Writes a job's chunks, by a predictor that must be the job's; may be called from several threads."""

    def __init__(self, run: BatchRun, predictor: Predictor) -> None:
        self._run, self._predictor, self._bridge = run, predictor, Bridge()
        opened = self._model = predictor.model
        if (opened.bundle, opened.policy) != (run.model.bundle, run.model.policy):
            raise GlintError(f"{run.model_uri} has become another bundle or policy since the job began")

    def write(self, chunk: int, rows: list[dict[str, Any]], scored: Mapping[int, Scored], seconds: float) -> Written:
        """Write the outcomes of a chunk's manifest rows, scored by their places in it, which took so long."""
        outcomes = [self._outcome(row, scored[place]) for place, row in enumerate(rows)]
        timings = {"total": seconds}
        for step in ("read", "decode", "infer", "wait"):
            timings[step] = sum((result.timings_ms or {}).get(step, 0.0) for result in scored.values()) / 1000
        document = summarise(self._run.id, chunk, outcomes, timings, self._run.options.ttl_s)
        began = time.perf_counter()
        self._bridge.run(self._run.store.put_chunk(document, outcomes))
        return Written(document.model_dump_json(), time.perf_counter() - began)

    def _outcome(self, row: dict[str, Any], scored: Scored) -> Outcome:
        if scored.probabilities is None:
            assert scored.error is not None
            prediction = failed(scored.error)
        else:
            prediction = self._predictor.interpret(scored.probabilities, self._run.options.top_k)
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
