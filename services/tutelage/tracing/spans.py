"""Spans, as the rest of the code sees them. They cost nothing in a process that sends none (see `export`).

A span holds names, numbers and ids: never text of a prompt, token ids or keys, and of an error its type alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, Protocol

from tutelage.about import ABOUT
from tutelage_client.tracing import CONTEXT, NOWHERE, TraceContext

Attributes = Mapping[str, str | int | float | bool]
Kind = Literal["internal", "server", "producer", "consumer"]


class Span(Protocol):
    """Work that is under way. One that does not end is told to nobody."""

    @property
    def context(self) -> TraceContext:
        """What work on behalf of it is given along."""
        ...

    def rename(self, name: str) -> None: ...

    def tell(self, attributes: Attributes) -> None:
        """Add what became known since it began."""
        ...

    def fail(self, reason: str) -> None:
        """reason: one of few, such as the type of an error"""
        ...

    def end(self) -> None: ...


class Unrecorded:
    """The span of a process that sends none: work goes on in the context that it is in."""

    @property
    def context(self) -> TraceContext:
        return CONTEXT.get()

    def rename(self, name: str) -> None: ...

    def tell(self, attributes: Attributes) -> None: ...

    def fail(self, reason: str) -> None: ...

    def end(self) -> None: ...


class Tracer(Protocol):
    """What begins spans."""

    def start(
        self,
        name: str,
        attributes: Attributes,
        kind: Kind,
        parent: TraceContext,
        links: Sequence[TraceContext],
        own: TraceContext,
    ) -> Span: ...


TRACER: ContextVar[Tracer | None] = ContextVar("tracer", default=None)
_NOTHING = Unrecorded()


def is_recorded() -> bool:
    """Whether this process sends spans; where it does not, nothing need be gathered for one."""
    return TRACER.get() is not None


def started(
    name: str,
    attributes: Attributes,
    kind: Kind = "internal",
    *,
    parent: TraceContext | None = None,
    links: Sequence[TraceContext] = (),
    own: TraceContext = NOWHERE,
) -> Span:
    """A span that its caller ends. What this task is about is in it.

    parent: by default the context of this task; links: work that it is done for, instead of a parent
    own: the context that it has, where that is known beforehand
    """
    tracer = TRACER.get()
    if tracer is None:
        return _NOTHING
    if parent is None:
        parent = NOWHERE if links else CONTEXT.get()
    subject = {f"opd.{name}": value for name, value in ABOUT.get().items()}
    return tracer.start(name, subject | dict(attributes), kind, parent, links, own)


@contextmanager
def span(
    name: str,
    attributes: Attributes,
    kind: Kind = "internal",
    *,
    parent: TraceContext | None = None,
    links: Sequence[TraceContext] = (),
    own: TraceContext = NOWHERE,
) -> Iterator[Span]:
    """A span around a block, as `started`, whose work is done in its context. Enter and leave it in one task."""
    if not is_recorded():
        yield _NOTHING
        return
    opened = started(name, attributes, kind, parent=parent, links=links, own=own)
    before = CONTEXT.set(opened.context)
    try:
        yield opened
    except Exception as error:
        opened.fail(type(error).__name__)
        raise
    finally:
        CONTEXT.reset(before)
        opened.end()
