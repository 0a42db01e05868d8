"""Spans cost nothing where none are sent, and the environment alone says whether they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from otlp_receiver import Receiver, receiving

from tutelage.about import about
from tutelage.queue import envelope
from tutelage.queue.base import Job
from tutelage.serving import create_app
from tutelage.tracing import is_recorded, span, started
from tutelage.tracing.export import exported
from tutelage_client.tracing import CONTEXT, NOWHERE, TraceContext, received, run_trace, traceparent

OTEL = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
SERVICES = ("coordinator", "teacher", "trainer", "sampler")
FLAGS = {"trainer": [], "sampler": ["--name", "s"], "teacher": ["--name", "t", "--engine", "fake"]}
AS_MAIN = "import runpy, sys\n{first}\nrunpy.run_module('tutelage.{service}', None, '__main__')"


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with receiving() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        yield receiver


def start(service: str, first: str, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """A service that ends by itself. first: what its interpreter does before"""
    flags = FLAGS.get(service, ["--data-dir", str(folder)])
    argv = [sys.executable, "-c", AS_MAIN.format(first=first, service=service), *flags]
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "TUTELAGE_"))}
    return subprocess.run(argv, env=plain | env, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize("service", SERVICES)
def test_an_endpoint_without_the_library_ends_a_service_with_a_sentence(service: str, tmp_path: Path) -> None:
    ended = start(service, "sys.modules['opentelemetry.sdk'] = None", tmp_path, **OTEL)
    assert ended.returncode == 2, ended.stderr
    (sentence,) = ended.stderr.splitlines()
    assert sentence.startswith(f"tutelage.{service}: OTEL_EXPORTER_OTLP_ENDPOINT asks for traces")
    assert "pip install 'tutelage[otel]'" in sentence


@pytest.mark.parametrize(
    ("name", "value"),
    [("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "collector:4318")],
)
def test_what_cannot_be_used_ends_a_service_with_a_sentence(name: str, value: str, tmp_path: Path) -> None:
    ended = start("sampler", "pass", tmp_path, **OTEL | {name: value})
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"tutelage.sampler: {name} is {value!r}")


@pytest.mark.parametrize("off", [{}, OTEL | {"OTEL_SDK_DISABLED": "true"}, OTEL | {"OTEL_TRACES_EXPORTER": "none"}])
def test_a_process_that_sends_none_loads_nothing_and_starts_no_thread(
    off: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import sys, threading; from tutelage.tracing.export import exported; from tutelage.tracing import span\n"
        "import tutelage.teacher.batcher, tutelage.trainer.sending\n"
        "with exported('teacher'), span('work', {}):\n"
        "    print(threading.active_count(), [name for name in sys.modules if name.startswith('opentelemetry.sdk')])"
    )
    env = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    ended = subprocess.run([sys.executable, "-c", code], env=env | off, capture_output=True, text=True, check=True)
    assert ended.stdout == "1 []\n"


def test_without_a_receiver_every_span_is_the_same_object_and_work_stays_in_its_context() -> None:
    mine = TraceContext(traceparent("run-1"))
    before = CONTEXT.set(mine)
    try:
        assert not is_recorded()
        with span("a", {}) as one, span("b", {}, links=[mine]) as other:
            assert one is other is started("c", {})
            assert one.context is mine
            assert CONTEXT.get() is mine
    finally:
        CONTEXT.reset(before)


def test_what_a_task_is_about_is_in_its_spans_and_errors_tell_their_type_alone(receiver: Receiver) -> None:
    with exported("teacher"), about(run_id="r", step=3):
        with pytest.raises(ValueError, match="a secret"), span("outer", {"opd.tokens": 7}), span("inner", {}):
            raise ValueError("a secret")
        assert CONTEXT.get() == NOWHERE
    inner, outer = receiver.spans
    assert (inner.parent, inner.trace, outer.parent) == (outer.id, outer.trace, "")
    assert outer.attributes == {"opd.run_id": "r", "opd.step": 3, "opd.tokens": 7, "error.type": "ValueError"}
    assert inner.failed
    assert b"secret" not in b"".join(receiver.bodies)


def test_work_for_several_is_in_their_trace_if_they_share_one_and_else_in_its_own(receiver: Receiver) -> None:
    one, same, other = (received(traceparent(run_id, about)) for run_id, about in ("aa", "ab", "ba"))
    with exported("teacher"):
        for links in ([one, same], [one, other], [NOWHERE, one], [NOWHERE]):
            started("batch", {}, links=links).end()
    shared, mixed, partly, unknown = receiver.spans
    assert (shared.trace, partly.trace) == (run_trace("a"), run_trace("a"))
    assert len({mixed.trace, unknown.trace, run_trace("a"), run_trace("b")}) == 4
    assert [len(span.links) for span in receiver.spans] == [2, 2, 1, 0]
    assert not any(span.parent for span in receiver.spans)


def test_a_span_has_the_ids_that_were_told_beforehand(receiver: Receiver) -> None:
    own = received(traceparent("run-1", "job"), "vendor=1")
    with exported("trainer"):
        begun = started("send toy", {}, "producer", own=own)
        begun.end()
    (sent,) = receiver.spans
    assert own.traceparent.split("-")[1:3] == [sent.trace, sent.id]
    assert begun.context.traceparent == own.traceparent


def test_a_tracestate_goes_on_with_the_work(receiver: Receiver) -> None:
    asked = received(traceparent("run-1"), "vendor=1")
    with exported("trainer"), span("work", {}, parent=asked) as work:
        assert work.context.trace_id == asked.trace_id
        assert work.context.tracestate == "vendor=1"
    assert receiver.spans[0].parent == asked.traceparent.split("-")[2]


def test_a_process_goes_back_to_sending_none(receiver: Receiver) -> None:
    threads = threading.active_count()
    with exported("teacher"):
        assert is_recorded()
    assert not is_recorded()
    assert threading.active_count() <= threads + 1, "the one that closed it may be about to end"


async def test_a_request_tells_its_route_and_nothing_else_of_its_address(receiver: Receiver) -> None:
    app = create_app("a service")

    @app.get("/v1/things/{thing}")
    async def thing(thing: str) -> dict[str, Any]:
        if thing == "broken":
            raise RuntimeError("a secret")
        return dict(CONTEXT.get().headers)

    asked = received(traceparent("run-1"))
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    with exported("coordinator"):
        async with httpx2.AsyncClient(transport=transport, base_url="http://it") as client:
            told = (await client.get("/v1/things/secret?key=secret", headers=asked.headers)).json()
            await client.get("/v1/things/broken")
            await client.get("/nowhere/secret")
            await client.request("SECRET", "/v1/things/secret")
            await client.get("/healthz")
    good, broken, unmatched, odd = receiver.spans
    assert good.name == "GET /v1/things/{thing}"
    assert (good.trace, good.parent) == (asked.trace_id, asked.traceparent.split("-")[2])
    assert told["traceparent"] == f"00-{good.trace}-{good.id}-01"
    assert (good.attributes["http.response.status_code"], good.failed, broken.failed) == (200, False, True)
    assert (unmatched.name, unmatched.attributes["http.response.status_code"]) == ("GET", 404)
    assert odd.attributes["http.request.method"] == "_OTHER"
    assert b"secret" not in b"".join(receiver.bodies).lower()


@given(st.text(max_size=600), st.text(max_size=600))
def test_what_is_taken_for_a_context_can_be_sent_on(parent: str, state: str) -> None:
    assert received(parent, state) == NOWHERE
    taken = received(traceparent("r"), state)
    assert taken.tracestate in (state, "")
    assert all(value.isascii() and value.isprintable() for value in taken.headers.values())


@given(st.dictionaries(st.text(min_size=1), st.integers(), max_size=3), st.sampled_from(["", "vendor=1"]))
def test_an_envelope_may_lack_the_state_and_hold_fields_that_are_not_known(new: dict[str, int], state: str) -> None:
    job = Job("id", "toy", "r", "r", 3, b"payload", traceparent("r", "id"), state)
    body = envelope.pack(job)
    assert (b"tracestate" in body) == bool(state)
    line, _, payload = body.partition(b"\n")
    known = {"schema", "id", "queue", "reply_to", "run_id", "tokens", "traceparent", "tracestate"}
    added = "".join(f", {json.dumps(name)}: {value}" for name, value in new.items() if name not in known)
    assert envelope.unpack(line[:-1] + added.encode() + b"}\n" + payload) == job
