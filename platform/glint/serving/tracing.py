"""OpenTelemetry traces of requests, sent to a collector by OTLP over HTTP.

Ray Serve and FastAPI make the spans, below the `traceparent` that a caller sends or that is made here, and Serve calls
`span_processors` in its proxies and replicas because RAY_SERVE_TRACING_EXPORTER_IMPORT_PATH names it. What it needs of
OpenTelemetry comes with Ray; its own exporter does not, so the few lines of one are here.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Mapping, Sequence
from secrets import token_hex
from typing import Any

import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
TIMEOUT_S = 10

LOG = logging.getLogger("glint.serving")


def traceparent() -> bytes:
    """For a request that brings none: what makes its spans one trace, sampled or not as a whole (W3C Trace Context)."""
    sampled = random.random() < float(os.environ.get("RAY_SERVE_TRACING_SAMPLING_RATIO", "1"))
    return f"00-{token_hex(16)}-{token_hex(8)}-{sampled:02d}".encode()


def span_processors() -> list[SpanProcessor]:
    """Called by Serve."""
    return [BatchSpanProcessor(OtlpExporter(os.environ[ENDPOINT]))]


class OtlpExporter(SpanExporter):
    """Posts spans to ENDPOINT/v1/traces as protobuf. What cannot be sent is lost, with a line in the log."""

    def __init__(self, endpoint: str) -> None:
        self._client = httpx.Client(timeout=TIMEOUT_S, trust_env=False)
        self._url = f"{endpoint.rstrip('/')}/v1/traces"

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Called in a thread of the SDK's, with what has ended since the last call."""
        headers = {"content-type": "application/x-protobuf"}
        try:
            self._client.post(self._url, content=encoded(spans), headers=headers).raise_for_status()
        except httpx.HTTPError as error:
            LOG.warning("%d spans are lost: %s: %s", len(spans), self._url, error)
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Close the connection."""
        self._client.close()


def encoded(spans: Sequence[ReadableSpan]) -> bytes:
    """The spans of one process, as OTLP has them."""
    resource = Resource(attributes=_pairs({"service.name": "glint", "process.pid": os.getpid()}))
    scope = ScopeSpans(scope=InstrumentationScope(name="glint"), spans=[_span(span) for span in spans])
    whole = ExportTraceServiceRequest(resource_spans=[ResourceSpans(resource=resource, scope_spans=[scope])])
    return bytes(whole.SerializeToString())


def _span(span: ReadableSpan) -> Span:
    return Span(
        trace_id=span.context.trace_id.to_bytes(16, "big"),
        span_id=span.context.span_id.to_bytes(8, "big"),
        parent_span_id=span.parent.span_id.to_bytes(8, "big") if span.parent else b"",
        name=span.name,
        kind=Span.SpanKind.Value(f"SPAN_KIND_{span.kind.name}"),
        start_time_unix_nano=span.start_time or 0,
        end_time_unix_nano=span.end_time or 0,
        attributes=_pairs({key: _shown(key, value) for key, value in (span.attributes or {}).items()}),
        status=Status(
            code=Status.StatusCode.Value(f"STATUS_CODE_{span.status.status_code.name}"),
            message=span.status.description or "",
        ),
    )


def _shown(key: str, value: Any) -> Any:
    """A value without a query, which may name a patient."""
    if key == "url.query":
        return ""
    return value.partition("?")[0] if isinstance(value, str) and key.startswith(("url.", "http.")) else value


def _pairs(attributes: Mapping[str, Any]) -> list[KeyValue]:
    """Numbers and truth values as such, anything else as text."""
    kinds = {bool: "bool_value", int: "int_value", float: "double_value", str: "string_value"}

    def value(given: Any) -> AnyValue:
        return AnyValue(**{kinds[type(given)]: given}) if type(given) in kinds else AnyValue(string_value=str(given))

    return [KeyValue(key=key, value=value(given)) for key, given in attributes.items()]
