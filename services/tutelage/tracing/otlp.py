"""Spans sent over OTLP/HTTP by OpenTelemetry's SDK.

Work never waits for the receiver: spans gather in a bounded queue, a thread sends them, what is not taken is dropped.
The SDK is registered nowhere, so that what other libraries would trace by themselves, text of prompts for one, is not
sent.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
from collections.abc import Sequence
from contextvars import ContextVar
from threading import Thread

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import OTEL_SPAN_LINK_COUNT_LIMIT
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, get_current_span, set_span_in_context
from opentelemetry.trace import Span as OtelSpan
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import tutelage
from tutelage.tracing.spans import Attributes, Kind, Span
from tutelage_client.tracing import TraceContext

log = logging.getLogger(__name__)
CLOSE_S = 2.0  # the longest that the end of a process waits for the receiver of its last spans
MOST_LINKS = 1024  # jobs that one engine call answers
KINDS = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
}
_W3C = TraceContextTextMapPropagator()
_OWN: ContextVar[tuple[int, int]] = ContextVar("own", default=(0, 0))  # trace and span of the next span; 0: drawn


class Otlp:
    """Begins the spans of this process and sends those that ended."""

    def __init__(self, service: str) -> None:
        for library in ("opentelemetry", "urllib3"):  # they would tell of every try; `Told` says it once
            logging.getLogger(library).setLevel(logging.CRITICAL)
        limits = SpanLimits() if OTEL_SPAN_LINK_COUNT_LIMIT in os.environ else SpanLimits(max_links=MOST_LINKS)
        self._provider = TracerProvider(
            resource=_resource(service), id_generator=Ids(), span_limits=limits, shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(Told(OTLPSpanExporter())))
        self._tracer = self._provider.get_tracer("tutelage", tutelage.__version__)

    def start(
        self,
        name: str,
        attributes: Attributes,
        kind: Kind,
        parent: TraceContext,
        links: Sequence[TraceContext],
        own: TraceContext,
    ) -> Span:
        linked = [_spoken(link) for link in links if link.trace_id is not None]
        traces = {link.trace_id for link in linked}
        known = _spoken(own)
        told = _OWN.set((known.trace_id or (traces.pop() if len(traces) == 1 else 0), known.span_id))
        try:
            begun = self._tracer.start_span(
                name,
                _W3C.extract(parent.headers),
                KINDS[kind],
                attributes,
                [Link(link) for link in linked],
                record_exception=False,
                set_status_on_exception=False,
            )
        finally:
            _OWN.reset(told)
        return Recorded(begun)

    def close(self) -> None:
        """Send what is left, for at most `CLOSE_S`."""
        closing = Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSE_S)


class Recorded:
    """A span of the SDK."""

    def __init__(self, span: OtelSpan) -> None:
        self._span = span
        fields: dict[str, str] = {}
        _W3C.inject(fields, set_span_in_context(span))
        self.context = TraceContext(**fields)

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def tell(self, attributes: Attributes) -> None:
        self._span.set_attributes(attributes)

    def fail(self, reason: str) -> None:
        self._span.set_attribute("error.type", reason)
        self._span.set_status(Status(StatusCode.ERROR))

    def end(self) -> None:
        self._span.end()


class Ids(IdGenerator):
    """Ids that are told where they are known beforehand. The others come of the system, not of a seeded generator."""

    def generate_trace_id(self) -> int:
        return _OWN.get()[0] or secrets.randbits(127) + 1

    def generate_span_id(self) -> int:
        return _OWN.get()[1] or secrets.randbits(63) + 1


class Told(SpanExporter):
    """Says once that spans are not taken, and once that they are again."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._taken = True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        taken = result is SpanExportResult.SUCCESS
        if taken != self._taken:
            self._taken = taken
            log.warning("spans are taken again" if taken else "spans are not taken, and dropped until they are")
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


def _resource(service: str) -> Resource:
    """Who sends; what the environment says goes first."""
    named = {
        "service.namespace": "tutelage",
        "service.name": service,
        "service.version": tutelage.__version__,
        "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
    }
    return Resource.create(named | dict(OTELResourceDetector().detect().attributes))


def _spoken(context: TraceContext) -> SpanContext:
    """A context as the SDK has it; an invalid one where it is empty."""
    return get_current_span(_W3C.extract(context.headers)).get_span_context()
