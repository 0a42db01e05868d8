"""Whether this process sends spans, by OpenTelemetry's standard environment. If not, nothing of it is loaded."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tutelage.tracing.spans import TRACER
from tutelage_client.errors import InvalidInput

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


@contextmanager
def exported(service: str) -> Iterator[None]:
    """Around the work of a process, in its `__main__`: its spans go where the environment says, if it says so.

    What cannot be used ends the process with status 2 and a sentence.
    """
    if (endpoint := _endpoint()) is None:
        yield
        return
    try:
        _check(endpoint)
        from tutelage.tracing.otlp import Otlp
    except ImportError as error:
        sentence = f"{endpoint} asks for traces, but {error.name} is not there: pip install 'tutelage[otel]'"
        sys.exit(_refused(service, f"{sentence}, or set OTEL_SDK_DISABLED=true"))
    except InvalidInput as error:
        sys.exit(_refused(service, error.message))
    otlp = Otlp(service)
    before = TRACER.set(otlp)
    try:
        yield
    finally:
        TRACER.reset(before)
        otlp.close()


def _endpoint() -> str | None:
    """The variable that names a receiver; None where there is none, or traces are switched off."""
    off = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if off or os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none":
        return None
    return _first(ENDPOINTS)


def _check(endpoint: str) -> None:
    """Raises InvalidInput where the environment asks for what this cannot do."""
    if not os.environ[endpoint].startswith(("http://", "https://")):
        raise InvalidInput(f"{endpoint} is {os.environ[endpoint]!r}, which is not an http:// or https:// address")
    if (protocol := _first(PROTOCOLS)) is not None and os.environ[protocol] != "http/protobuf":
        raise InvalidInput(f"{protocol} is {os.environ[protocol]!r}; traces are sent as http/protobuf alone")


def _first(names: tuple[str, ...]) -> str | None:
    return next((name for name in names if os.environ.get(name)), None)


def _refused(service: str, sentence: str) -> int:
    sys.stderr.write(f"tutelage.{service}: {sentence}\n")
    return 2
