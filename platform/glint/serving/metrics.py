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
            "glint_model_info", "Which version serves", ("model", "version", "bundle"), registry=registry
        )
        self._swaps = Counter(
            "glint_model_swaps", "Attempts to follow an alias", ("model", "result"), registry=registry
        )
        self._serving: dict[str, tuple[str, str, str]] = {}

    def image(self, model: str, outcome: str, seconds: float) -> None:
        """Count one image: `ok`, the type of its error, `overloaded`, or `error` for a mistake of the server's own."""
        self._images.labels(model, outcome).inc()
        self._seconds.labels(model).observe(seconds)

    def serves(self, model: str, ref: ModelRef) -> None:
        """Say which version answers from now on."""
        if before := self._serving.get(model):
            self._info.remove(*before)
        self._serving[model] = now = (model, ref.version or "", ref.bundle)
        self._info.labels(*now).set(1)

    def swap(self, model: str, result: str) -> None:
        """Count an attempt to follow an alias: `swapped`, `refused` or `failed`."""
        self._swaps.labels(model, result).inc()

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self._registry)
