"""Where a batch job spends its time: seconds by step, how busy each step's threads were, and what it costs."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from glint.core.job import Bottleneck, Chunk
from glint.pipelines.chunk_answers import Written

DOING = {"read": "reading", "decode": "decoding", "infer": "inferring", "write": "writing"}
FULL = 0.8
"""Busy beyond this, a step's threads hold up the rest."""
NOTABLE = 0.05
"""Share of the time from which on it is said that scoring processes were down."""


NodeThreads = tuple[str, Mapping[str, int]]
"""The id of the node that an actor is on, and how many threads each step has there, with `cores`.

Without any that infer, those that decode do both.
"""


class Work:
    """Sums over the chunks of this run."""

    def __init__(self) -> None:
        self.num_images = 0
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._threads: Counter[str] = Counter()
        self._nodes = set[str]()
        self._num_cores = self._num_processes = 0
        self._began = self._ended = time.monotonic()

    def begin(self, threads: Sequence[NodeThreads]) -> None:
        """Scoring begins, by actors of which several may be on one node, and share its cores."""
        self._nodes = {node for node, _ in threads}
        cores = {node: own["cores"] for node, own in threads if "cores" in own}  # who only infers tells of none
        self._num_processes = sum("cores" in own for _, own in threads)
        self._num_cores = sum(cores.values())
        for _, own in threads:
            self._threads.update(own)
        self._began = self._ended = time.monotonic()

    def add(self, chunk: Chunk, written: Written) -> None:
        """Count a chunk that was scored now."""
        self.num_images += chunk.num_images
        for step in ("read", "decode", "infer", "wait"):
            self._seconds[step] += chunk.timings_s.get(step, 0.0)
        self._seconds["write"] += written.write_s
        self._seconds["restart"] += written.down_s
        self.end()

    def end(self) -> None:
        """Up to now."""
        self._ended = time.monotonic()

    @property
    def images_per_s(self) -> float:
        """Of this run so far."""
        return self.num_images / max(self._ended - self._began, 1e-3)

    def bottleneck(self, node_price: float | None = None) -> Bottleneck | None:
        """What was spent, None where nothing was scored; `node_price` is that of a node an hour."""
        if not self.num_images:
            return None
        elapsed = max(self._ended - self._began, 1e-3)
        shared = not self._threads["infer"]
        threads = self._threads | Counter(infer=self._threads["decode"]) if shared else self._threads
        busy = {step: min(1.0, self._seconds[step] / (threads[step] * elapsed)) for step in DOING}
        down = self._seconds["restart"] / (self._num_processes * elapsed)
        per_vcpu = round(self.images_per_s / self._num_cores, 1)
        hours = 1e6 / self.images_per_s / 3600
        cost = None if node_price is None else round(node_price * len(self._nodes) * hours, 2)
        told = [_line(busy, shared), f"{per_vcpu} images/s per vCPU"]
        told += [f"processes restarted {down:.0%} of the time"] if down >= NOTABLE else []
        told += [f"a million images cost {cost:.2f}"] if cost is not None else []
        return Bottleneck(
            line="; ".join(told),
            seconds={step: round(self._seconds[step], 2) for step in (*DOING, "wait", "restart")},
            busy={step: round(share, 3) for step, share in busy.items()},
            images_per_s=round(self.images_per_s, 1),
            images_per_s_per_vcpu=per_vcpu,
            node_price=node_price,
            num_nodes=len(self._nodes),
            cost_per_million=cost,
        )


def _line(busy: Mapping[str, float], shared: bool) -> str:
    load = dict(busy)
    if shared:
        load["decode"] = load["infer"] = busy["decode"] + busy["infer"]
    first, *others = sorted(busy, key=lambda step: -busy[step])
    rest = ", ".join(f"{DOING[step]} {busy[step]:.0%}" for step in others)
    full = [DOING[step] for step in (first, *others) if load[step] >= FULL]
    held = f"held up by {' and '.join(full)}" if full else "held up by no step alone"
    return f"{held}: {DOING[first]} busy {busy[first]:.0%}, {rest}"
