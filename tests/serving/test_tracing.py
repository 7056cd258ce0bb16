import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind, StatusCode
from tests.serving.collector import collecting

from glint.serving.tracing import span_processors


def test_spans_reach_the_collector_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        provider = TracerProvider()
        (processor,) = span_processors()
        provider.add_span_processor(processor)
        tracer = provider.get_tracer("test")
        with (
            tracer.start_as_current_span("request", kind=SpanKind.SERVER),
            tracer.start_as_current_span("decode") as decode,
        ):
            decode.set_status(StatusCode.ERROR, "truncated")
        provider.shutdown()
    inner, outer = collector.spans
    assert (outer.name, outer.kind, outer.parent_span_id) == ("request", Span.SPAN_KIND_SERVER, b"")
    assert (inner.parent_span_id, inner.trace_id) == (outer.span_id, outer.trace_id)
    assert (inner.status.code, inner.status.message) == (Status.STATUS_CODE_ERROR, "truncated")
