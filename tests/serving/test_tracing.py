import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode

from glint.serving.tracing import OtlpExporter, span_processors


@contextmanager
def collector(status: int = 200) -> Iterator[tuple[str, list[Span]]]:
    """An OTLP collector's address, and the spans that it has been sent."""
    seen: list[Span] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.path == "/v1/traces" and self.headers["content-type"] == "application/x-protobuf":
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    seen.extend(resource.scope_spans[0].spans)
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", seen
        server.shutdown()


def traced(url: str) -> TracerProvider:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(OtlpExporter(url)))
    return provider


def test_spans_reach_a_collector_as_they_are() -> None:
    with collector() as (url, seen):
        tracer = traced(url).get_tracer("test")
        with tracer.start_as_current_span("request", kind=SpanKind.SERVER) as request:
            request.set_attributes({"route": "/v1/classify", "size": 3, "share": 0.5, "ok": True, "ids": (1, 2)})
            with tracer.start_as_current_span("decode") as decode:
                decode.set_status(StatusCode.ERROR, "truncated")
    inner, outer = seen
    assert (outer.name, outer.kind, outer.parent_span_id) == ("request", Span.SPAN_KIND_SERVER, b"")
    assert (inner.parent_span_id, inner.trace_id) == (outer.span_id, outer.trace_id)
    assert (inner.status.code, inner.status.message) == (Status.STATUS_CODE_ERROR, "truncated")
    assert outer.start_time_unix_nano < inner.start_time_unix_nano < outer.end_time_unix_nano
    values = {pair.key: pair.value for pair in outer.attributes}
    assert (values["route"].string_value, values["size"].int_value) == ("/v1/classify", 3)
    assert (values["share"].double_value, values["ok"].bool_value) == (0.5, True)
    assert values["ids"].string_value == "(1, 2)"


def test_a_collector_that_fails_or_is_away_fails_no_request(caplog: pytest.LogCaptureFixture) -> None:
    with collector(503) as (url, _), traced(url).get_tracer("test").start_as_current_span("request"):
        pass
    with traced(url).get_tracer("test").start_as_current_span("request"):
        pass
    assert [record.message.partition(":")[0] for record in caplog.records] == 2 * ["1 spans are lost"]


def test_serve_gets_one_processor_for_the_endpoint_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318/")
    (processor,) = span_processors()
    processor.shutdown()
