"""Every line that any service of a run logs is JSON of one schema: that of docs/howto/watching.md."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from typing import Any

import pytest
from cluster import PROBE, Cluster, ended
from pages import ROOT

from tutelage.trainer.exits import ExitCode
from tutelage_client.tracing import run_trace

pytestmark = pytest.mark.asyncio(loop_scope="session")
ROW = re.compile(r"^\| `(\w+)` \| (string|number)[^|]* \| (always)?", re.MULTILINE)
SECTION = (ROOT / "docs" / "howto" / "watching.md").read_text().partition("## Logs")[2].partition("\n## ")[0]
SCHEMA = {key: (str if kind == "string" else int, always == "always") for key, kind, always in ROW.findall(SECTION)}
FAULTS = [*PROBE, "error", "error"]  # a batch that fails is tried again job by job
LEVELS = {"debug", "info", "warning", "error", "critical"}
STARTED = "listening on "  # on stdout, in the same file here; one that was started again says so again


def read(text: str) -> list[dict[str, Any]]:
    """The lines of a process's log, each an object. Fails where one is not."""
    return [json.loads(line) for line in text.splitlines() if not line.startswith(STARTED)]


def check(line: dict[str, Any]) -> None:
    for key, (kind, always) in SCHEMA.items():
        assert key in line or not always, (key, line)
        assert key not in line or type(line[key]) is kind, (key, line)
    assert datetime.fromisoformat(line["time"]).utcoffset() == timedelta(0)
    assert line["level"] in LEVELS
    if "run_id" in line:
        assert line["trace_id"] == run_trace(line["run_id"])


async def test_the_schema_names_what_is_always_there_and_what_is_not() -> None:
    always = {key for key, (_, always) in SCHEMA.items() if always}
    assert always == {"time", "level", "service", "message"}
    sometimes = {"run_id", "epoch", "step", "policy_version", "rollout_id", "request_id", "trace_id"}
    assert SCHEMA.keys() - always == sometimes


async def test_every_line_of_every_service_is_of_the_schema(cluster: Cluster) -> None:
    talkative = cluster.teacher("talkative", "--log-level", "debug", "--max-deliveries", "1", faults=FAULTS)
    sampler = cluster.sampler("pool")
    await talkative.start()
    await sampler.start()
    try:
        await cluster.registered("talkative")
        run_id = await cluster.submit(
            teachers=[{"name": "talkative"}], rollout={"sampler": "pool"}, optim={"steps": 2}, checkpoint={"every": 1}
        )
        trainer = cluster.trainer(run_id, "logged")
        await trainer.start()
        assert await ended(trainer) == ExitCode.DONE
    finally:
        await talkative.stop(grace_s=5)
        await sampler.stop(grace_s=5)
        async with cluster.client() as client:
            await client.remove_teacher("talkative")
    seen: dict[str, set[str]] = {}
    for child in (cluster.coordinator, talkative, sampler, trainer):
        lines = read(child.log.read_text())
        for line in lines:
            check(line)
        (service,) = {line["service"] for line in lines}
        seen[service] = {key for line in lines for key in line if line.get("run_id") == run_id}
    assert seen["coordinator"] >= {"run_id", "trace_id"}
    assert seen["trainer"] >= {"run_id", "epoch", "step", "policy_version", "rollout_id", "trace_id"}
    assert seen["teacher"] >= {"run_id", "request_id", "trace_id"}
    assert seen["sampler"] >= {"run_id", "policy_version", "trace_id"}
