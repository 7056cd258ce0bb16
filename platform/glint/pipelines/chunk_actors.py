"""Chunks over the nodes of a Ray: one actor a node, each with a scoring process that it watches.

Where there are GPUs, these actors only decode, on every node that has CPUs, and an actor on each GPU infers: decoding
and inferring scale apart. Chunks are handed out as actors have room, so that the driver holds no more than what is in
flight, however long the job is. Ray starts an actor again that died, or whose node did, and repeats its calls: no more
than CHUNKS_AT_ONCE.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from glint.pipelines.batch_run import CHUNKS_AT_ONCE, BatchRun
from glint.pipelines.bottleneck import NodeThreads
from glint.pipelines.chunk_answers import Decoded, Written
from glint.pipelines.scoring_process import ScoringProcess

CLOSE_S = 2.0
MAX_RETRIES = 3
"""Of a call whose actor or node died; without a bound an image that kills the engine of a GPU would do so for ever."""

Out = dict[Any, tuple[Any, deque[Any]]]
"""Calls that are out: the actor that does each, and where that one is free again."""


class ChunkActor:
    """A node's scoring process, as an actor; `apart`: it only decodes."""

    def __init__(self, run: BatchRun, apart: bool) -> None:
        self._process = ScoringProcess(run, apart)

    def threads(self) -> NodeThreads:
        """How many threads each step has, and on which node."""
        return str(ray.get_runtime_context().get_node_id()), self._process.threads()

    def score(self, chunk: int) -> Written | Decoded | None:
        """Score and write a chunk, or decode it; None where the actor was closed meanwhile."""
        with suppress(CancelledError):
            return self._process.score(chunk)
        return None

    def close(self) -> None:
        """End the process."""
        self._process.close()


class ChunkActors:
    """The actors of one job. Closing ends them at once, with what they have in hand."""

    def __init__(self, run: BatchRun) -> None:
        gpus = int(ray.cluster_resources().get("GPU", 0))
        apart = run.options.decode == "apart" or (run.options.decode == "auto" and gpus > 0)
        on_gpu = {"num_gpus": 1} if gpus else {}
        if apart:
            self._first = _actors(ChunkActor, (run, True), num_nodes(), 1)
            self._second = _actors(_infer_actor(), (run,), gpus or num_nodes(), **on_gpu)
        else:
            self._first = _actors(ChunkActor, (run, False), gpus or num_nodes(), 1, **on_gpu)
            self._second = []

    def __enter__(self) -> ChunkActors:
        return self

    def __exit__(self, *_: object) -> None:
        # Killed at work, they would have Ray print that it tries their calls again.
        closed = [actor.close.remote() for actor in self._first]
        ray.wait(closed, num_returns=len(closed), timeout=CLOSE_S)
        for actor in (*self._first, *self._second):
            ray.kill(actor)

    def threads(self) -> list[NodeThreads]:
        """How many threads each step has, by actor; waits until all of them are ready."""
        return _told([actor.threads.remote() for actor in (*self._first, *self._second)])

    def score(self, chunks: Iterable[int]) -> Iterator[Written]:
        """Each chunk when it is written, in whatever order. Raises what a scoring process raises."""
        waiting = iter(chunks)
        out: Out = {}
        first, second = (deque(actors * CHUNKS_AT_ONCE) for actors in (self._first, self._second))
        decoded: deque[Any] = deque()
        while True:
            # What is decoded and not yet inferred is in Ray's store, so that there is a bound to it.
            while first and len(decoded) < len(self._first) and (chunk := next(waiting, None)) is not None:
                _give(out, first, chunk)
            while second and decoded:
                _give(out, second, decoded.popleft())
            if not out:
                return
            ready, _ = ray.wait(list(out), num_returns=1)
            actor, home = out.pop(ready[0])
            home.append(actor)
            if home is first and self._second:
                decoded.append(ready[0])
            else:
                yield _told(ready)[0]


def _give(out: Out, free: deque[Any], work: Any) -> None:
    """Have the next free actor do it."""
    actor = free.popleft()
    out[actor.score.remote(work)] = (actor, free)


def _actors(kind: type, arguments: tuple[Any, ...], num: int, closing: int = 0, **resources: int) -> list[Any]:
    """So many actors, spread over the nodes, with `closing` calls beside those of CHUNKS_AT_ONCE."""
    made: Any = ray.remote(kind).options(
        num_cpus=1,
        max_concurrency=CHUNKS_AT_ONCE + closing,
        max_restarts=-1,
        max_task_retries=MAX_RETRIES,
        scheduling_strategy="SPREAD",
        **resources,
    )
    return [made.remote(*arguments) for _ in range(num)]


def _infer_actor() -> type:
    from glint.pipelines.infer_actor import InferActor  # with PyTorch, which the driver of other jobs does without

    return InferActor


def _told(refs: list[Any]) -> list[Any]:
    """The answers; an actor's error is raised as what it was, without Ray's words about it.

    Raises RuntimeError where an actor died more than MAX_RETRIES times of the same call.
    """
    try:
        return ray.get(refs)
    except RayTaskError as error:
        raise error.cause from None
    except RayActorError as error:
        said = "an actor that scores, or its node, died each of {} times that it was given the same mini-batch: {}"
        raise RuntimeError(said.format(MAX_RETRIES + 1, error)) from None


def num_nodes() -> int:
    """Nodes of the running Ray that can score."""
    return max(1, sum(bool(node["Alive"] and node["Resources"].get("CPU")) for node in ray.nodes()))
