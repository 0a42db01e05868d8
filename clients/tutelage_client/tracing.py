"""Trace context of W3C: a run is one trace, so that what every process told of it can be put together.

The trace's id follows from the run's; whoever knows the run knows it. On the way it is a `traceparent`, with a
`tracestate` where somebody added one: fields of a job, headers over HTTP. A request that has its own keeps it.
"""

from __future__ import annotations

import hashlib
import re
from contextvars import ContextVar
from typing import NamedTuple

_FORM = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
_STATE = re.compile(r"[\x20-\x7e]{0,512}")


class TraceContext(NamedTuple):
    """Both fields as they travel; empty where there is no trace."""

    traceparent: str = ""
    tracestate: str = ""

    @property
    def trace_id(self) -> str | None:
        """None where it is no trace context."""
        return trace_of(self.traceparent)

    @property
    def headers(self) -> dict[str, str]:
        """Those that are not empty, by their names."""
        return {name: value for name, value in self._asdict().items() if value}


NOWHERE = TraceContext()  # in no trace
CONTEXT: ContextVar[TraceContext] = ContextVar("trace_context", default=NOWHERE)  # of the work of this task


def received(traceparent: str, tracestate: str = "") -> TraceContext:
    """The context that somebody sent; an empty one where it is none, and no state that is none."""
    if trace_of(traceparent) is None:
        return NOWHERE
    return TraceContext(traceparent, tracestate if _STATE.fullmatch(tracestate) else "")


def run_trace(run_id: str) -> str:
    """The id of a run's trace, 32 hexadecimal digits."""
    return hashlib.sha256(f"run/{run_id}".encode()).hexdigest()[:32]


def traceparent(run_id: str, about: str = "") -> str:
    """The context of one piece of work of a run, such as a job: its own span in the run's trace."""
    span = hashlib.sha256(f"span/{run_id}/{about}".encode()).hexdigest()[:16]
    return f"00-{run_trace(run_id)}-{span}-01"


def trace_of(context: str) -> str | None:
    """The trace's id; None where it is no trace context."""
    found = _FORM.fullmatch(context)
    return found[1] if found and context[:2] != "ff" and int(found[1], 16) and int(found[2], 16) else None
