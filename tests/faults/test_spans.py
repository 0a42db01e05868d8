"""A run as spans: what its processes send to a receiver of OTLP, and what becomes of the run where nobody receives."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Iterator
from datetime import datetime

import pytest
import pytest_asyncio
from cluster import Cluster, ended
from otlp_receiver import Got, Receiver, receiving
from tiny_run import PROMPTS, ROLLOUTS

from tutelage.standalone.children import Child
from tutelage.trainer.exits import ExitCode
from tutelage_client.tracing import run_trace

pytestmark = pytest.mark.asyncio(loop_scope="module")
STEPS = 2
HELD_OUT = STEPS + 1  # the one line is answered before the first step and after each
ENDS_WITHIN_S = 6.0  # a service's own end, and the two seconds for its last spans
SENT = {"messaging.system": "redis", "messaging.operation.type": "send"}


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def traced(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> AsyncGenerator[Cluster]:
    """Services that send to the receiver, and a sampler beside them."""
    cluster = Cluster(tmp_path_factory.mktemp("traced"))
    cluster.env |= {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_BSP_SCHEDULE_DELAY": "200"}
    held_out = cluster.folder / "held_out.jsonl"
    held_out.write_text(json.dumps({"prompt": PROMPTS[0], "answer": "t5"}) + "\n")
    cluster.spec |= {"optim": {"steps": STEPS}, "checkpoint": {"every": 1}, "eval": {"every": 1}}
    cluster.spec["data"] |= {"eval": str(held_out)}
    try:
        await cluster.start()
        sampler = cluster.sampler("pool")
        await sampler.start()
        yield cluster
        await sampler.stop(grace_s=5)
    finally:
        await cluster.stop()


async def run(cluster: Cluster, name: str) -> tuple[str, Child]:
    """A run that a trainer's process has brought to its end; samplers write its text, a teacher scores it."""
    run_id = await cluster.submit(rollout={"sampler": "pool"})
    trainer = cluster.trainer(run_id, name)
    await trainer.start()
    assert await ended(trainer) == ExitCode.DONE
    await cluster.sound(run_id)
    return run_id, trainer


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def seen(traced: Cluster, receiver: Receiver) -> list[Got]:
    """All spans of a run's trace, once the last ones of each service are there."""
    run_id, _ = await run(traced, "seen")
    async with asyncio.timeout(20):
        while True:
            found = [span for span in receiver.spans if span.trace == run_trace(run_id)]
            done = sum(span.name.startswith("process ") and len(span.links) for span in found)
            if done >= 2 * STEPS * ROLLOUTS + HELD_OUT and any(span.name.endswith("/outcome") for span in found):
                return found
            await asyncio.sleep(0.1)


async def test_a_run_is_one_tree_of_spans_over_all_services(seen: list[Got], receiver: Receiver) -> None:
    assert {span.service for span in seen} == {"trainer", "teacher", "sampler", "coordinator"}
    assert not any(span.failed for span in seen)
    (attempt,) = (span for span in seen if span.name == "attempt")
    assert attempt.parent == ""
    of_it = [span for span in receiver.spans if span.attributes.get("opd.run_id") == attempt.attributes["opd.run_id"]]
    elsewhere = {span.service for span in of_it if span.trace != attempt.trace}
    assert elsewhere <= {"coordinator"}, "requests of people who look at it are not of its trace"
    ids = {span.id for span in seen}
    orphans = {span.name for span in seen if span.parent and span.parent not in ids}
    assert orphans == {"POST /internal/v1/runs/{run_id}/lease"}, "before it there is no attempt"


async def test_a_step_has_its_parts_below_it(seen: list[Got]) -> None:
    (attempt,) = (span for span in seen if span.name == "attempt")
    steps = [span for span in seen if span.name == "step"]
    assert [(span.parent, span.attributes["opd.step"]) for span in steps] == [(attempt.id, n + 1) for n in range(STEPS)]
    for step in steps:
        assert step.attributes["opd.epoch"] == 1
        assert step.attributes["opd.policy_version"] == step.attributes["opd.step"] - 1
        parts = {span.name: span for span in seen if span.parent == step.id and span.service == "trainer"}
        assert parts.keys() >= {"write", "ask", "learn", "evaluate"}
        assert {span.parent for span in seen if span.name == "send toy"} >= {parts["ask"].id}
    assert any(span.name == "checkpoint" and span.parent == steps[0].id for span in seen)


async def test_a_request_is_a_span_of_its_route(seen: list[Got]) -> None:
    served = [span for span in seen if span.service == "coordinator"]
    assert {span.kind for span in served} == {"server"}
    route = "/internal/v1/runs/{run_id}/heartbeat"
    beat = next(span for span in served if span.name == f"POST {route}")
    expected = {"http.request.method": "POST", "http.route": route, "http.response.status_code": 200}
    assert beat.attributes.items() >= expected.items()


@pytest.mark.parametrize(
    ("queue", "service", "operation", "pieces"),
    [
        ("toy", "teacher", "score", STEPS * ROLLOUTS + HELD_OUT),
        ("sampler/pool", "sampler", "text_completion", STEPS * ROLLOUTS),
    ],
)
async def test_each_piece_of_work_is_sent_once_and_a_batch_links_to_all_that_it_does(
    seen: list[Got], queue: str, service: str, operation: str, pieces: int
) -> None:
    sent = {(span.trace, span.id): span for span in seen if span.name == f"send {queue}"}
    assert len(sent) == pieces
    for span in sent.values():
        assert span.kind == "producer"
        assert span.attributes.items() >= (SENT | {"messaging.destination.name": queue}).items()
        assert {"opd.step", "opd.policy_version", "opd.run_id"} <= span.attributes.keys()
    batches = [span for span in seen if span.name == f"process {queue}"]
    assert {(span.service, span.kind, span.parent) for span in batches} == {(service, "consumer", "")}
    assert {link for span in batches for link in span.links} == set(sent)
    assert sum(span.attributes["messaging.batch.message_count"] for span in batches) == len(sent)
    assert {span.attributes["gen_ai.operation.name"] for span in batches} == {operation}


async def test_an_engine_call_tells_its_model_and_its_tokens(seen: list[Got]) -> None:
    for span in (span for span in seen if span.name == "process toy"):
        assert span.attributes["gen_ai.request.model"]
        assert span.attributes["gen_ai.usage.input_tokens"] > 0
        assert span.attributes["opd.teacher"] == "toy"
        assert span.attributes["opd.run_id"] == seen[0].attributes["opd.run_id"]


async def test_no_span_holds_text_or_a_key(seen: list[Got], traced: Cluster, receiver: Receiver) -> None:
    sent = b"".join(receiver.bodies)
    assert all(span.name.encode() in sent for span in seen), "the bodies are plain"
    for secret in (*PROMPTS, traced.key):
        assert secret.encode() not in sent


async def test_a_receiver_that_is_away_changes_nothing_and_holds_no_process_up(
    traced: Cluster, receiver: Receiver
) -> None:
    """It takes connections and is silent, which is worse than to be gone."""
    receiver.talking.clear()
    run_id, trainer = await run(traced, "unseen")
    assert receiver.refused, "somebody tried to send"
    (last,) = (line for line in map(json.loads, trainer.log.read_text().splitlines()) if "exit_code" in line)
    assert time.time() - datetime.fromisoformat(last["time"]).timestamp() < ENDS_WITHIN_S
    assert not [span for span in receiver.spans if span.trace == run_trace(run_id)]
    for child in (*traced.teachers, traced.coordinator):
        began_s = time.monotonic()
        await child.stop(grace_s=30)
        assert time.monotonic() - began_s < ENDS_WITHIN_S, child.name
        assert child.process is not None
        assert child.process.returncode == 0
