"""What a replica counts, in the format of Prometheus; docs/serving.md tells of each."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from glint.core.outcome import ModelRef

MEDIA_TYPE = CONTENT_TYPE_PLAIN_0_0_4
SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class Metrics:
    """The counters of one replica."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._images = Counter("glint_images", "By what became of them", ("model", "outcome"), registry=registry)
        self._seconds = Histogram(
            "glint_image_seconds", "From arrival to answer", ("model",), buckets=SECONDS, registry=registry
        )
        self.pending = Gauge("glint_pending_images", "Images that wait or are worked on", registry=registry)
        self._info = Gauge(
            "glint_model_info", "Which version serves", ("model", "role", "version", "bundle"), registry=registry
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
        self._trying = Gauge("glint_contest_trying", "1 while the challenger is tried", ("model",), registry=registry)
        self._returns = Counter(
            "glint_contest_returns", "Times that a challenger crossed a limit", ("model",), registry=registry
        )
        self._serving: dict[tuple[str, str], tuple[str, str, str, str]] = {}

    def image(self, model: str, outcome: str, seconds: float) -> None:
        """Count one image: `ok`, the type of its error, `overloaded`, or `error` for a mistake of the server's own."""
        self._images.labels(model, outcome).inc()
        self._seconds.labels(model).observe(seconds)

    def serves(self, model: str, role: str, ref: ModelRef) -> None:
        """Say which version is the `champion` or the `challenger` from now on."""
        if before := self._serving.get((model, role)):
            self._info.remove(*before)
        self._serving[model, role] = now = (model, role, ref.version or "", ref.bundle)
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
        """All of it, as Prometheus reads it."""
        return generate_latest(self._registry)
