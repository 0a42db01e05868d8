"""Our side: a run on the embedded stack, which advances only while it is let."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.step.blocks import Block, Processes
from benchmarks.step.first_step import FirstStep
from tutelage.standalone.stack import StackOptions, running
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.errors import TutelageError
from tutelage_client.spec import RunSpec
from tutelage_client.wire import Rollout, RunView

POLL_S = 0.2
ENDLESS = 1_000_000


class Ours:
    """The stack's client and the run in progress. Between two blocks all of the stack's processes stand still."""

    def __init__(self, client: CoordinatorClient, processes: Processes, spec: RunSpec) -> None:
        self.client = client
        self.processes = processes
        self.spec = spec
        self.run_id = ""
        self._seen = 0

    async def first_step(self, rollouts: list[Rollout]) -> FirstStep:
        """One step on these rollouts, pushed to a run of one step, as its metrics tell of it."""
        body = measured_spec(self.spec, steps=1) | {"data": {}}
        body["rollout"] |= {"source": "pushed"}
        run = await self.client.submit(body)
        await self.client.push_rollouts(run.id, rollouts)
        await self._until(run.id, lambda seen: seen.status.final)
        [row] = [row for row in await self.client.metrics(run.id) if row["step"] == 1]
        return FirstStep(row["loss"], row["grad_norm"], int(row["learned_tokens"]))

    async def begin(self) -> None:
        """Start the run that is measured, and leave it standing after its first steps."""
        self.run_id = (await self.client.submit(measured_spec(self.spec, ENDLESS))).id
        await self._until(self.run_id, lambda seen: seen.step >= 2)
        self.processes.stop()

    async def block(self, steps: int) -> Block:
        """At least `steps` whole steps; those that a stop cut are not among them."""
        self.processes.go_on()
        begun_s, cpu_s = time.time(), self.processes.cpu_s()
        first = (await self.client.run(self.run_id)).step
        last = (await self._until(self.run_id, lambda seen: seen.step > first + steps)).step
        cpu_s = self.processes.cpu_s() - cpu_s
        ended = await self._ended(begun_s)
        self.processes.stop()
        seconds = [after - before for (before, _), (after, _) in pairwise(ended)]
        rows = [row for _, row in ended[1:]]
        return Block(seconds, [int(row["tokens"]) for row in rows], cpu_s / (last - first), parts(seconds, rows))

    async def _ended(self, since_s: float) -> list[tuple[float, dict[str, Any]]]:
        """Time and metrics of every step that ended since then and was not told yet, by the coordinator's clock."""
        found: list[tuple[float, dict[str, Any]]] = []
        while page := (await self.client.event_page(self.run_id, after=self._seen)).data:
            self._seen = page[-1].id
            steps = [event for event in page if event.type == "metrics" and event.data["step"] > 0]
            found += [(event.created_at.timestamp(), event.data) for event in steps]
        return [(ended_s, row) for ended_s, row in found if ended_s >= since_s]

    async def _until(self, run_id: str, wanted: Any) -> RunView:
        while not wanted(run := await self.client.run(run_id)):
            if run.status.final:
                raise TutelageError(f"the run {run.status}: {run.error.message if run.error else run.status_reason}")
            await asyncio.sleep(POLL_S)
        return run


def parts(seconds: list[float], rows: list[dict[str, Any]]) -> dict[str, float]:
    """Mean seconds of a step's parts: writing with scoring beside it, waiting, learning, reporting."""
    learn_s, wait_s, all_s = (fmean(row[name] for row in rows) for name in ("learn_s", "wait_s", "seconds"))
    return {"write": all_s - wait_s - learn_s, "wait": wait_s, "learn": learn_s, "report": fmean(seconds) - all_s}


@asynccontextmanager
async def ours(folder: Path, teacher: Path, spec: RunSpec) -> AsyncIterator[Ours]:
    """The stack with its teacher, as `tutelage up` starts it."""
    options = StackOptions(data_dir=folder, port=0, teachers={spec.teachers[0].name: teacher})
    async with running(options) as stack, CoordinatorClient(stack.url) as client:
        side = Ours(client, Processes([child.pid for child in stack.children]), spec)
        try:
            yield side
        finally:
            side.processes.go_on()


def measured_spec(spec: RunSpec, steps: int) -> dict[str, Any]:
    """The spec with nothing in it that is no part of a step: no evaluation, no checkpoint before the end."""
    body = spec.model_dump(mode="json")
    body["data"] = {"train": body["data"]["train"]}
    body["optim"]["steps"] = steps
    body["checkpoint"]["every"] = body["eval"]["every"] = ENDLESS
    return body
