"""Runs in every state on a live embedded stack, for a browser to look at."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from embedded_stack import SKILL, Up, finished, small_spec, until

from tutelage.queue import Job, open_queue
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.wire import EventReport, Outcome, Rollout, RunError, StepReport
from tutelage_client.worker import WorkerClient

HOSTILE = (
    "<script>window.pwned = 1</script><img src=/x onerror='window.pwned = 2'>"
    "<svg onload='window.pwned = 3'>\u202egnp.exe\u202c " + "unbroken" * 400
)


@dataclass(frozen=True)
class Scene:
    """Ids of runs by what became of them. rollouts: paths of the pages of some; `url` is the coordinator's."""

    up: Up
    url: str
    succeeded: str
    fork: str
    failed: str
    hostile: str
    paused: str
    queued: str
    live: str
    rollouts: dict[str, str]

    @property
    def paths(self) -> dict[str, str]:
        """Every page, by a name for it."""
        named = {name: f"/runs/{getattr(self, name)}" for name in RUNS}
        lists = {
            "runs": "/",
            "teachers": "/teachers",
            "queue": "/queue",
            "audit": "/audit",
            "no such run": "/runs/none",
        }
        several = {
            "choose": f"/runs/{self.succeeded}/compare",
            "compare": f"/runs/{self.succeeded}/compare/{self.fork}",
            "rollouts": f"/runs/{self.succeeded}/rollouts",
            "no rollouts": f"/runs/{self.queued}/rollouts",
        }
        return lists | named | several | self.rollouts


RUNS = ("succeeded", "fork", "failed", "hostile", "paused", "queued", "live")


@contextmanager
def coordinator(data: Path, *flags: str) -> Iterator[str]:
    """The address of one that has just been started, with no worker."""
    argv = [sys.executable, "-m", "tutelage.coordinator", "--data-dir", str(data), "--port", "0", *flags]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield next(line for line in process.stdout if line.startswith("listening on ")).split()[-1]
    finally:
        process.terminate()
        process.communicate(timeout=30)


async def scene(up: Up, folder: Path) -> Scene:
    bad = folder / "bad.jsonl"
    bad.write_text('{"answer": "4"}\n')
    async with up.client() as client:
        first = await client.submit(demo("skill", steps=30))
        wrong = await client.submit(small_spec(bad, "no-prompts"))
        await finished(up, first.id)
        fork = await client.fork(first.id, spec={"optim": {"lr": 3e-4, "steps": 36}})
        live = await client.submit(demo("skill-live", steps=100_000))
        await finished(up, fork.id)
        await until(up, live.id, lambda run: run.step > 0)  # it keeps the one trainer, so what follows waits
        paused = await client.pause((await client.submit(demo("skill-later", steps=30))).id)
        hostile, long = await _hostile(up.url, client)
        queued = await client.submit(demo("skill-next", steps=30))
        await _give_up(up, live.id)
        worst = await _worst(client, first.id)
        before, after = await _held_out(client, first.id)
    pages = {
        "rollout": f"/runs/{first.id}/rollouts/{worst}",
        "held-out": f"/runs/{first.id}/rollouts/{before}?beside={after}",
        "hostile rollout": f"/runs/{hostile}/rollouts/hostile",
        "long rollout": f"/runs/{hostile}/rollouts/{long}",
    }
    ids = {"succeeded": first.id, "fork": fork.id, "failed": wrong.id, "hostile": hostile, "live": live.id}
    return Scene(up, up.url, **ids, paused=paused.id, queued=queued.id, rollouts=pages)


def demo(name: str, steps: int) -> dict[str, Any]:
    """The demo's own set-up, with less text a step."""
    evaluated = {"train": str(SKILL / "prompts.jsonl"), "eval": str(SKILL / "tune.jsonl")}
    return small_spec(
        SKILL / "prompts.jsonl",
        name,
        data=evaluated | {"grader": {"kind": "last_number"}},
        rollout={"prompts_per_step": 16, "max_new_tokens": 64},
        optim={"steps": steps, "lr": 1e-3},
        eval={"every": 10, "samples": 1},
        checkpoint={"every": 10},
    )


async def _worst(client: CoordinatorClient, run_id: str) -> str:
    """The shown rollout with the token that its teacher finds least likely."""
    gaps: dict[str, float] = {}
    for sample in (await client.rollouts(run_id)).data:
        inspection = (await client.rollout(run_id, sample.rollout.id)).inspection
        if inspection is not None and inspection.gap is not None:
            gaps[sample.rollout.id] = float(np.nanmin(inspection.gap))
    return min(gaps, key=gaps.__getitem__)


async def _held_out(client: CoordinatorClient, run_id: str) -> tuple[str, str]:
    """The answers to one held-out line before the first step and after the last one."""
    shown = await client.all_rollouts(run_id)
    answers = [sample.rollout for sample in shown if sample.held_out]
    prompt = answers[0].prompt
    same = [answer.id for answer in answers if answer.prompt == prompt]
    return same[0], same[-1]


async def _hostile(url: str, client: CoordinatorClient) -> tuple[str, str]:
    """A run whose worker reports what hurts, and fails; with a rollout of 10,000 tokens."""
    spec = {"name": "hostile", "student": {"model": "/m"}, "data": {}, "rollout": {"source": "pushed"}}
    run = await client.submit(spec | {"objective": {"kind": "constant_penalty"}})
    evil = rollout("hostile", 40).model_copy(update={"prompt": HOSTILE, "answer": HOSTILE, "tag": HOSTILE})
    rollouts = [evil, rollout("long", 10_000)]
    async with WorkerClient(url) as worker:
        lease = await worker.lease_run(run.id, "browser-tests")
        told = {"student_tokens": 1, "teacher_tokens": 1, "metrics": {"loss": 1.0, HOSTILE[:40]: 1.0}}
        report = StepReport.model_validate({"epoch": lease.epoch, "step": 1} | told)
        await worker.report_step(run.id, report.model_copy(update={"rollouts": rollouts}))
        await worker.report_event(run.id, EventReport(epoch=lease.epoch, type="log", level="error", message=HOSTILE))
        error = RunError(code="bad_data", message=HOSTILE, category="data", field=HOSTILE[:60])
        await worker.report_outcome(run.id, Outcome(epoch=lease.epoch, result="failed", error=error))
    return run.id, "long"


def rollout(name: str, tokens: int) -> Rollout:
    draw = np.random.default_rng(0)
    return Rollout(
        id=name,
        source="pushed",
        policy_version=0,
        prompt_ids=np.array([1, 2]),
        completion_ids=draw.integers(0, 30, tokens, dtype=np.int32),
        mask=draw.random(tokens) < 0.9,
        behaviour_logprob=-draw.exponential(1.0, tokens).astype(np.float32),
    )


async def _give_up(up: Up, run_id: str) -> None:
    """A question that no teacher can read, so that there is a dead letter."""
    queue = open_queue(up.described["redis"]["url"])
    try:
        await queue.put([Job("browser-tests", "adder", run_id, run_id, 7, b"no request")])
        while not await queue.dead_letters("adder"):
            await asyncio.sleep(0.1)  # polled: nobody tells of it
    finally:
        await queue.close()
