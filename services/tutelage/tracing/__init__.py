"""Traces: spans as the code opens them, and their export where a process is told to."""

from tutelage.tracing.spans import Attributes, Span, is_recorded, span, started

__all__ = ["Attributes", "Span", "is_recorded", "span", "started"]
