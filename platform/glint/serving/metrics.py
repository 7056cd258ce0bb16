"""What replicas count, in the format of Prometheus; docs/serving.md tells of each.

Where the environment of a process has SHARED, prometheus_client keeps its counts in files of that folder, and any
replica answers for all replicas of its node, those that have ended among them.
"""

from __future__ import annotations

import os
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from glint.core.outcome import ModelRef

MEDIA_TYPE = CONTENT_TYPE_PLAIN_0_0_4
SHARED = "PROMETHEUS_MULTIPROC_DIR"
SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class Metrics:
    """The counters of one replica."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._images = Counter("glint_images", "By what became of them", ("model", "outcome"), registry=registry)
        self._seconds = Histogram(
            "glint_image_seconds", "From arrival to answer", ("model",), buckets=SECONDS, registry=registry
        )
        self.pending = Gauge(
            "glint_pending_images", "Images that wait or are worked on", registry=registry, multiprocess_mode="livesum"
        )
        self._info = Gauge(
            "glint_model_info",
            "Replicas that serve a version",
            ("model", "role", "version", "bundle"),
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._swaps = Counter(
            "glint_model_swaps", "Attempts to follow an alias", ("model", "role", "result"), registry=registry
        )
        self._work = Histogram(
            "glint_contest_seconds",
            "Work on an image, by side of a contest",
            ("model", "role"),
            buckets=SECONDS,
            registry=registry,
        )
        self._errors = Counter(
            "glint_contest_errors", "Images that a side failed on", ("model", "role"), registry=registry
        )
        self._compared = Counter(
            "glint_contest_compared", "Images that both sides were to score", ("model", "result"), registry=registry
        )
        self._trying = Gauge(
            "glint_contest_trying",
            "Replicas that try the challenger",
            ("model",),
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._returns = Counter(
            "glint_contest_returns", "Times that a challenger crossed a limit", ("model",), registry=registry
        )
        self._serving: dict[tuple[str, str], tuple[str, str, str, str]] = {}

    def image(self, model: str, outcome: str, seconds: float | None = None) -> None:
        """Count one image: `ok`, the type of its error, `overloaded`, or `error` for a mistake of the server's own.

        What was refused took no `seconds`: among those of answers, load would look like speed.
        """
        self._images.labels(model, outcome).inc()
        if seconds is not None:
            self._seconds.labels(model).observe(seconds)

    def serves(self, model: str, role: str, ref: ModelRef) -> None:
        """Say which version is the `champion` or the `challenger` from now on."""
        before, now = self._serving.get((model, role)), (model, role, ref.version or "", ref.bundle)
        if before and before != now:
            self._info.labels(*before).set(0)
        self._serving[model, role] = now
        self._info.labels(*now).set(1)

    def swap(self, model: str, role: str, result: str) -> None:
        """Count an attempt to follow an alias: `swapped`, `refused` or `failed`."""
        self._swaps.labels(model, role, result).inc()

    def contested(self, model: str, role: str, took_s: float | None) -> None:
        """Count an image that a side of a contest worked on, None where it failed."""
        if took_s is None:
            self._errors.labels(model, role).inc()
        else:
            self._work.labels(model, role).observe(took_s)

    def compared(self, model: str, result: str) -> None:
        """Count an image for both sides: `same`, `other_decision`, `other_label`, `failed`, or `skipped` under load."""
        self._compared.labels(model, result).inc()

    def trying(self, model: str, tried: bool) -> None:
        """Say whether a challenger is tried; it no longer is when it has crossed a limit."""
        self._trying.labels(model).set(int(tried))
        self._returns.labels(model).inc(int(not tried))

    def text(self) -> bytes:
        """All of it, as Prometheus reads it: of all replicas of this node where they share a folder."""
        registry, shared = self._registry, os.environ.get(SHARED)
        if shared:
            _forget_the_dead(Path(shared))
            registry = CollectorRegistry()
            MultiProcessCollector(registry, shared)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


def _forget_the_dead(shared: Path) -> None:
    """Take away what ended replicas last said of the moment; what they counted stays."""
    for file in shared.glob("gauge_live*_*.db"):
        pid = file.stem.rpartition("_")[2]
        if not Path(f"/proc/{pid}").exists():
            mark_process_dead(int(pid), str(shared))  # type: ignore[no-untyped-call]
