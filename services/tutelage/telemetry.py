"""Log lines and metric definitions. Neither ever carries prompt text, token ids or secrets."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from pydantic import ValidationError

from tutelage.about import ABOUT
from tutelage_client.errors import Flaw
from tutelage_client.tracing import CONTEXT, run_trace

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_LONGEST_ERROR = 300
WRITES = ("lease", "heartbeat", "outcome", "steps", "events", "checkpoints")  # of a trainer: the last word of the route


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, service, message; what the work is about, where it is about something; what
    was passed as `extra`; the trace's id.
    """

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "service": self._service,
            "message": record.getMessage().rstrip(),
        }
        line |= ABOUT.get()
        line |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        line |= _traced(line.get("run_id"))
        if record.exc_info and record.exc_info[1] is not None:
            line |= describe_error(record.exc_info[1])
        return json.dumps(line, default=str)


def _traced(run_id: str | None) -> dict[str, str]:
    """The trace of the run that a line names, or else of the work that wrote it."""
    trace_id = CONTEXT.get().trace_id if run_id is None else run_trace(run_id)
    return {} if trace_id is None else {"trace_id": trace_id}


def describe_error(error: BaseException) -> dict[str, Any]:
    """What a log line may say of an error: its type, its first line, and where it was raised.

    A validation error quotes what it was given, so of that only the number of errors is told.
    """
    told = f"{error.error_count()} validation errors" if isinstance(error, ValidationError) else str(error)
    frames = traceback.extract_tb(error.__traceback__)
    return {
        "error": type(error).__name__,
        "reason": told.partition("\n")[0][:_LONGEST_ERROR],
        "where": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames[-8:]],
    }


def configure_logging(service: str, level: str = "info") -> None:
    """Send every log line of this process to stderr as JSON, warnings of libraries and what ends it among them."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(service))
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    for noisy in ("httpx2", "httpcore2", "uvicorn.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    sys.excepthook = _ended_by


def _ended_by(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Of an error that nobody caught. Somebody who pressed Ctrl-C knows."""
    if not issubclass(kind, KeyboardInterrupt):
        logging.getLogger(__name__).critical("the process ends by an error", exc_info=(kind, error, trace))


@dataclass(frozen=True, slots=True)
class HttpMetrics:
    """What every service counts; `route` is the template, never the path with its ids."""

    requests: Counter
    seconds: Histogram

    @classmethod
    def of(cls, registry: CollectorRegistry) -> Self:
        labels = ("method", "route", "status")
        return cls(
            Counter("tutelage_http_requests_total", "Answered HTTP requests", labels, registry=registry),
            Histogram("tutelage_http_request_seconds", "Seconds to answer", ("method", "route"), registry=registry),
        )


@dataclass(frozen=True, slots=True)
class CoordinatorMetrics:
    """What a coordinator counts of its own work; of runs it tells what the database says."""

    leases_lost: Counter
    fenced_writes: Counter
    sse_clients: Gauge
    sse_dropped: Counter

    @classmethod
    def of(cls, registry: CollectorRegistry) -> Self:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"tutelage_{name}", text, labels, registry=registry)

        fenced = counter("fenced_writes_total", "Writes refused because another attempt has the run, by route", "what")
        for what in WRITES:
            fenced.labels(what)  # a counter that begins with its first event hides it from a rate
        return cls(
            leases_lost=counter("leases_lost_total", "Leases taken back from a trainer that was silent"),
            fenced_writes=fenced,
            sse_clients=Gauge("tutelage_sse_clients", "Streams of events that are read", registry=registry),
            sse_dropped=counter(
                "sse_dropped_total", "Streams of events that ended before their run because their key was refused"
            ),
        )


@dataclass(frozen=True, slots=True)
class TeacherMetrics:
    """What a teacher counts. door: http or queue; outcome: ok, refused, failed, or dropped."""

    scored_tokens: Counter
    forward_tokens: Counter
    cached_tokens: Counter
    generated_tokens: Counter
    requests: Counter
    batch_tokens: Histogram
    score_seconds: Histogram
    queue_wait_seconds: Histogram
    waiting_tokens: Gauge
    in_flight_tokens: Gauge
    spent_tokens: Gauge
    spent_usd: Gauge
    cost_usd: Counter
    refused_scores: Counter
    breaker_open: Gauge
    concurrency_limit: Gauge
    replica_up: Gauge
    replica_events: Counter
    canaries: Counter
    score_cache: Counter
    score_cache_bytes: Gauge

    @classmethod
    def of(cls, registry: CollectorRegistry) -> Self:
        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(f"tutelage_teacher_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(f"tutelage_teacher_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"tutelage_teacher_{name}", text, buckets=buckets, registry=registry)

        refused = counter(
            "refused_scores_total",
            "Engine calls whose answer was refused: nan, positive, length, mismatch (of other tokens), malformed",
            ("reason",),
        )
        for flaw in get_args(Flaw):
            refused.labels(flaw)
        seconds = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
        return cls(
            scored_tokens=counter("scored_tokens_total", "Tokens that got a score"),
            forward_tokens=counter("forward_tokens_total", "Tokens that went through the model"),
            cached_tokens=counter("cached_tokens_total", "Tokens that did not have to go through the model"),
            generated_tokens=counter("generated_tokens_total", "Tokens that the teacher wrote"),
            requests=counter("requests_total", "Requests by door and outcome", ("door", "outcome")),
            batch_tokens=histogram("batch_tokens", "Tokens of one engine call", tuple(2.0**n for n in range(5, 20))),
            score_seconds=histogram("score_seconds", "Seconds of one engine call", seconds),
            queue_wait_seconds=histogram("queue_wait_seconds", "Seconds from arrival to the engine call", seconds),
            waiting_tokens=gauge("waiting_tokens", "Tokens that wait for a batch"),
            in_flight_tokens=gauge("in_flight_tokens", "Tokens that the engine has in hand"),
            spent_tokens=gauge("spent_tokens", "Tokens that an account holds, restarts included", ("account",)),
            spent_usd=gauge("spent_usd", "Dollars that an account holds, restarts included", ("account",)),
            cost_usd=counter("cost_usd_total", "Dollars that work cost by the teacher's prices"),
            refused_scores=refused,
            breaker_open=gauge("breaker_open", "1 where calls to an upstream wait, as it failed", ("upstream",)),
            concurrency_limit=gauge("concurrency_limit", "Calls that may be open at an upstream now", ("upstream",)),
            replica_up=gauge("replica_up", "1 where an upstream of several takes work", ("replica",)),
            replica_events=counter(
                "replica_events_total",
                "What befell an upstream of several: asked, failed, quarantined, admitted, hedged, hedge_won",
                ("replica", "event"),
            ),
            canaries=counter("canaries_total", "Known questions asked again, by outcome: ok, failed", ("outcome",)),
            score_cache=counter(
                "score_cache_completions_total", "Completions by outcome: hit, joined (asked once), miss", ("outcome",)
            ),
            score_cache_bytes=gauge("score_cache_bytes", "Bytes of kept scores, in memory or file", ("place",)),
        )

    def spent(self, usage: Mapping[str, int]) -> None:
        """Count the tokens of a `Usage`, given as a mapping."""
        self.scored_tokens.inc(usage["scored_tokens"])
        self.forward_tokens.inc(usage["forward_tokens"])
        self.cached_tokens.inc(usage["cached_tokens"])
        self.generated_tokens.inc(usage["generated_tokens"])
