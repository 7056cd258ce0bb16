"""OpenTelemetry traces of requests, sent to a collector by OTLP over HTTP.

Ray Serve makes the spans, below the `traceparent` that a caller sends, and calls `span_processors` in its proxies and
replicas because RAY_SERVE_TRACING_EXPORTER_IMPORT_PATH names it.
"""

from __future__ import annotations

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor


def span_processors() -> list[SpanProcessor]:
    """Called by Serve. The exporter reads OTEL_EXPORTER_OTLP_ENDPOINT; what it cannot send it logs, and loses."""
    return [BatchSpanProcessor(OTLPSpanExporter())]
