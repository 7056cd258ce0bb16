"""Inferring apart from decoding: an actor that scores the pixels of chunks which others decoded, and writes them."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import ray
import torch

from glint.core.errors import ImageError
from glint.pipelines.batch_run import CHUNKS_AT_ONCE, BatchRun
from glint.pipelines.bottleneck import NodeThreads
from glint.pipelines.chunk_answers import Decoded, Written
from glint.pipelines.chunk_writer import ChunkWriter
from glint.pipelines.scoring import GPU_BATCH, Scored, check_engine, infer


class InferActor:
    """A GPU's network, as an actor; may be called from several threads, of which one writes while another infers."""

    def __init__(self, run: BatchRun) -> None:
        self._run = run
        self._predictor = run.open_predictor()
        self._writer = ChunkWriter(run, self._predictor)
        torch.set_num_threads(1)  # as where decoding and inferring are fused: chunks run beside each other

    def threads(self) -> NodeThreads:
        """How many threads each step has, and on which node."""
        return str(ray.get_runtime_context().get_node_id()), {"infer": 1, "write": CHUNKS_AT_ONCE}

    def score(self, decoded: Decoded) -> Written:
        """Infer what could be decoded of a chunk, and write the whole of it."""
        began = time.perf_counter()
        pixels = torch.from_numpy(decoded.pixels.copy())  # an array out of Ray's store cannot be written to
        parts = [part for part in pixels.split(GPU_BATCH) if len(part)]
        with _deadline(decoded.chunk, self._run.options.mini_batch_timeout_s):
            answers = [answer for part in parts for answer in infer(self._predictor, part)]
        infer_ms = 1000 * (time.perf_counter() - began) / max(1, len(answers))
        left, scored = iter(answers), {}
        for place, image in enumerate(decoded.images):
            answer = ImageError(*image["error"]) if image["error"] else next(left)
            timings = {**(image["timings_ms"] or {}), **({} if image["error"] else {"infer": infer_ms})}
            row, error = (None, answer) if isinstance(answer, ImageError) else (answer, None)
            scored[place] = Scored(row, error, None, image["width"], image["height"], timings)
        check_engine(list(scored.values()))
        seconds = decoded.seconds + time.perf_counter() - began
        written = self._writer.write(decoded.chunk, self._run.chunk_rows(decoded.chunk), scored, seconds)
        return replace(written, down_s=decoded.down_s)


@contextmanager
def _deadline(chunk: int, limit_s: float) -> Iterator[None]:
    """Ends this process where the engine hangs: Ray starts the actor again and repeats its calls, MAX_RETRIES times."""

    def give_up() -> None:
        said = f"the engine took longer than mini_batch_timeout_s {limit_s:g} for mini-batch {chunk}; its actor ends"
        print(said, file=sys.stderr, flush=True)
        os._exit(1)

    timer = threading.Timer(limit_s, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
