"""Chunks over the nodes of a Ray: one actor a node or GPU, each with a scoring process that it watches.

Chunks are handed out as actors have room, so that the driver holds no more than what is in flight, however long the
job is. Ray starts an actor again that died, or whose node did, and repeats its calls: no more than CHUNKS_AT_ONCE.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayTaskError

from glint.pipelines.batch_run import CHUNKS_AT_ONCE, BatchRun
from glint.pipelines.scoring_process import ScoringProcess, Written

CLOSE_S = 2.0


class ChunkActor:
    """A node's scoring process, as an actor."""

    def __init__(self, run: BatchRun) -> None:
        self._process = ScoringProcess(run)

    def threads(self) -> dict[str, int]:
        """How many threads each step has here."""
        return self._process.threads()

    def score(self, chunk: int) -> Written | None:
        """Score and write a chunk; None where the actor was closed meanwhile."""
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
        made: Any = ray.remote(ChunkActor).options(
            num_cpus=1,
            num_gpus=1 if gpus else 0,
            max_concurrency=CHUNKS_AT_ONCE + 1,  # and one to close it
            max_restarts=-1,
            max_task_retries=-1,
            scheduling_strategy="SPREAD",
        )
        self._actors = [made.remote(run) for _ in range(gpus or num_nodes())]

    def __enter__(self) -> ChunkActors:
        return self

    def __exit__(self, *_: object) -> None:
        # Killed at work, they would have Ray print that it tries their calls again.
        closed = [actor.close.remote() for actor in self._actors]
        ray.wait(closed, num_returns=len(closed), timeout=CLOSE_S)
        for actor in self._actors:
            ray.kill(actor)

    def threads(self) -> list[dict[str, int]]:
        """How many threads each step has, by actor; waits until all of them are ready."""
        return _told([actor.threads.remote() for actor in self._actors])

    def score(self, chunks: Iterable[int]) -> Iterator[Written]:
        """Each chunk when it is written, in whatever order. Raises what a scoring process raises."""
        waiting = iter(chunks)
        out: dict[Any, Any] = {}

        def give(actor: Any) -> None:
            chunk = next(waiting, None)
            if chunk is not None:
                out[actor.score.remote(chunk)] = actor

        for _ in range(CHUNKS_AT_ONCE):
            for actor in self._actors:
                give(actor)
        while out:
            ready, _ = ray.wait(list(out), num_returns=1)
            give(out.pop(ready[0]))
            yield _told(ready)[0]


def _told(refs: list[Any]) -> list[Any]:
    """The answers; an actor's error is raised as what it was, without Ray's words about it."""
    try:
        return ray.get(refs)
    except RayTaskError as error:
        raise error.cause from None


def num_nodes() -> int:
    """Nodes of the running Ray that can score."""
    return max(1, sum(bool(node["Alive"] and node["Resources"].get("CPU")) for node in ray.nodes()))
