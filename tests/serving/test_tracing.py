import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode
from tests.serving.collector import collecting

from glint.serving.tracing import OtlpExporter, span_processors


def traced(url: str) -> TracerProvider:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(OtlpExporter(url)))
    return provider


def test_spans_reach_a_collector_as_they_are() -> None:
    with collecting() as collector:
        tracer = traced(collector.url).get_tracer("test")
        with tracer.start_as_current_span("request", kind=SpanKind.SERVER) as request:
            request.set_attributes({"route": "/v1/classify", "size": 3, "share": 0.5, "ok": True, "ids": (1, 2)})
            request.set_attributes(
                {"url.query": "sticky=patient-7", "http.url": "http://glint/v1/classify?sticky=patient-7"}
            )
            with tracer.start_as_current_span("decode") as decode:
                decode.set_status(StatusCode.ERROR, "truncated")
    inner, outer = collector.spans
    assert (outer.name, outer.kind, outer.parent_span_id) == ("request", Span.SPAN_KIND_SERVER, b"")
    assert (inner.parent_span_id, inner.trace_id) == (outer.span_id, outer.trace_id)
    assert (inner.status.code, inner.status.message) == (Status.STATUS_CODE_ERROR, "truncated")
    assert outer.start_time_unix_nano < inner.start_time_unix_nano < outer.end_time_unix_nano
    values = {pair.key: pair.value for pair in outer.attributes}
    assert (values["route"].string_value, values["size"].int_value) == ("/v1/classify", 3)
    assert (values["share"].double_value, values["ok"].bool_value) == (0.5, True)
    assert values["ids"].string_value == "(1, 2)"
    assert (values["url.query"].string_value, values["http.url"].string_value) == ("", "http://glint/v1/classify")


def test_a_collector_that_fails_or_is_away_fails_no_request(caplog: pytest.LogCaptureFixture) -> None:
    with collecting(503) as busy, traced(busy.url).get_tracer("test").start_as_current_span("request"):
        pass
    with traced(busy.url).get_tracer("test").start_as_current_span("request"):
        pass
    assert [record.message.partition(":")[0] for record in caplog.records] == 2 * ["1 spans are lost"]


def test_serve_gets_one_processor_for_the_endpoint_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"{collector.url}/")
        (processor,) = span_processors()
        provider = TracerProvider()
        provider.add_span_processor(processor)
        with provider.get_tracer("test").start_as_current_span("request"):
            pass
        provider.shutdown()
    assert [span.name for span in collector.spans] == ["request"]
