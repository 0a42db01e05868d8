"""What three services logged of one run carries one trace id, also of work that went through the queue."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from cluster import PROBE, Cluster, ended

from tutelage.trainer.exits import ExitCode
from tutelage_client.tracing import run_trace, trace_of, traceparent

pytestmark = pytest.mark.asyncio(loop_scope="session")


def lines(cluster: Cluster) -> Iterator[dict[str, Any]]:
    for path in cluster.folder.glob("*.log"):
        yield from (json.loads(line) for line in path.read_text().splitlines() if line.startswith('{"time"'))


async def test_the_lines_of_a_teacher_a_trainer_and_the_coordinator_are_joined_by_the_runs_trace(
    cluster: Cluster,
) -> None:
    talkative = cluster.teacher("talkative", "--log-level", "debug", "--max-deliveries", "5", faults=[*PROBE, "error"])
    await talkative.start()
    try:
        await cluster.registered("talkative")
        run_ids = [await cluster.submit(teachers=[{"name": "talkative"}], optim={"steps": 2}) for _ in range(2)]
        for run_id in run_ids:
            trainer = cluster.trainer(run_id, "traced")
            await trainer.start()
            await cluster.until(run_id, lambda run: run.step >= 1)
            assert await ended(trainer) == ExitCode.DONE
            await cluster.sound(run_id)
    finally:
        await talkative.stop(grace_s=5)
        async with cluster.client() as client:
            await client.remove_teacher("talkative")
    first, second = (
        [line for line in lines(cluster) if line.get("trace_id") == run_trace(run_id)] for run_id in run_ids
    )
    assert {"teacher", "trainer", "coordinator"} <= {line["service"] for line in first}
    assert any(line["message"] == "a job failed" for line in first), "the one that its fault hit"
    worked = [
        {line["request_id"] for line in found if line["message"] == "a job is worked on"} for found in (first, second)
    ]
    assert all(worked)
    assert not worked[0] & worked[1]


async def test_what_is_no_trace_context_names_no_trace() -> None:
    assert trace_of(traceparent("run-1", "job")) == run_trace("run-1")
    zero = "00-" + "0" * 32 + "-" + "1" * 16 + "-01"
    for wrong in (
        "",
        "00-ab-cd-01",
        traceparent("r").upper(),
        "ff" + traceparent("r")[2:],
        zero,
        traceparent("r") + "-x",
    ):
        assert trace_of(wrong) is None
