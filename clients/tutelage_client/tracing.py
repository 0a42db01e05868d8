"""Trace context of W3C: a run is one trace, so that what every process logged of it can be put together.

The trace's id follows from the run's; whoever knows the run knows it. On the way it is a `traceparent`: a field of a
job, a header over HTTP. A request that has one of its own keeps it.
"""

from __future__ import annotations

import hashlib
import re
from contextvars import ContextVar

HEADER = "traceparent"
TRACEPARENT: ContextVar[str] = ContextVar("traceparent", default="")  # of the work that this task does
_FORM = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")


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
