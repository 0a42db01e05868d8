"""A receiver of traces over OTLP/HTTP: it decodes what services send, and falls silent when told to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass(frozen=True)
class Got:
    """A span as it arrived. Ids are hexadecimal; parent is empty at the top; links: trace and span"""

    service: str
    name: str
    kind: str
    trace: str
    id: str
    parent: str
    links: tuple[tuple[str, str], ...]
    attributes: dict[str, Any]
    failed: bool


@dataclass
class Receiver:
    """bodies: as they came, for who looks for what must not be in them"""

    url: str = ""
    spans: list[Got] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    talking: Event = field(default_factory=Event)
    refused: int = 0

    def take(self, body: bytes) -> None:
        self.bodies.append(body)
        for sent in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = _values(sent.resource.attributes)["service.name"]
            self.spans += [_got(service, span) for scope in sent.scope_spans for span in scope.spans]

    def named(self, name: str, service: str | None = None) -> list[Got]:
        return [span for span in self.spans if span.name == name and service in (None, span.service)]


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()
    receiver.talking.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if not receiver.talking.is_set():
                receiver.refused += 1
                receiver.talking.wait(60)  # its sender hears nothing, for longer than any of them waits
                return
            assert self.path == "/v1/traces"
            receiver.take(body)
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.end_headers()
            self.wfile.write(ExportTraceServiceResponse().SerializeToString())

        def log_message(self, format: str, *args: Any) -> None: ...  # noqa: A002 - its name

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.talking.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _got(service: str, span: Span) -> Got:
    return Got(
        service,
        span.name,
        Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        _values(span.attributes),
        span.status.code == 2,
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
