"""Whole runs in process: a tiny student, the real queue contract, a toy teacher, and a coordinator that listens."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from recording_worker import RecordingWorker
from torch import Tensor
from toy_teacher import answering, working
from whole_runs import SAMPLED, Build, finish

from tutelage.engines.fake import FakeEngine
from tutelage.queue import MemoryQueue
from tutelage.trainer import keeping, loop
from tutelage.trainer.exits import StopRun
from tutelage.trainer.run import Run
from tutelage_client.spec import RunSpec
from tutelage_client.wire import Page, Prices, Rollout, ScoreReply, StepReport, TokenScores, Usage, encode_reply

TAID = {
    "kind": "divergence",
    "divergence": "forward_kl",
    "support": {"kind": "student_top_k", "k": 4},
    "target": {"kind": "mixture", "weight": 0.4, "final_weight": 1.0, "over_steps": 1000, "adaptive": True},
}
TOP = {"kind": "divergence", "divergence": "reverse_kl", "support": {"kind": "student_top_k", "k": 4}}
ADAPTIVE = {
    "source": "adaptive",
    "adaptive": {"initial_share": 0.9, "rise": 0.05, "tolerance": 0.0, "capacity": 8},
    "prompts_per_step": 4,
    "samples_per_prompt": 2,
    "max_new_tokens": 8,
}


def weights(run: Run) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in run.student.trained.items()}


async def test_a_run_reports_every_step_and_what_it_used(
    spec_of: Any, building: Build, engine: FakeEngine, worker: RecordingWorker
) -> None:
    queue = MemoryQueue()
    run = await building(spec_of(5), worker, queue)
    before = weights(run)
    async with working(queue, engine):
        await finish(run)
    assert [row.step for row in worker.steps] == [0, 1, 2, 3, 4, 5]
    assert [row.step for row in worker.steps if "accuracy" in row.metrics] == [0, 2, 4, 5]
    assert [row.step for row in worker.steps if row.rollouts] == [2, 4, 5]
    assert [row.step for row in worker.steps if row.metrics.get("eval_s")] == [0, 2, 4, 5]
    assert [row.step for row in worker.steps if row.metrics.get("checkpoint_s")] == [3, 5], "behind steps 2 and 4"
    for row in worker.steps[1:]:
        assert row.metrics["learned_tokens"] == row.metrics["tokens"]
        assert row.metrics["lag"] == row.metrics["dropped"] == 0
        assert cast(float, row.metrics["grad_norm"]) > 0
        assert np.isfinite(cast(float, row.metrics["reverse_kl"]))
    assert np.diff([row.student_tokens for row in worker.steps]).tolist() == [
        r.metrics["tokens"] for r in worker.steps[1:]
    ]
    assert worker.steps[-1].teacher_tokens == run.ledger.teacher_tokens > worker.steps[-1].student_tokens
    assert any(not torch.equal(p, before[name]) for name, p in run.student.trained.items())


async def test_checkpoints_come_at_their_cadence_and_the_oldest_goes(
    spec_of: Any, building: Build, engine: FakeEngine, worker: RecordingWorker, tmp_path: Path
) -> None:
    queue = MemoryQueue()
    async with working(queue, engine):
        await finish(await building(spec_of(5), worker, queue))
    assert [(commit.step, commit.final) for commit in worker.commits] == [(2, False), (4, False), (5, True)]
    kept = sorted((tmp_path / "run" / "checkpoints").iterdir())
    assert [path.name for path in kept] == ["step-00000004-e1", "step-00000005-e1"]
    sizes = [sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) for folder in kept]
    assert [commit.bytes for commit in worker.commits[1:]] == sizes
    assert min(commit.seconds or 0 for commit in worker.commits) > 0


class PushingWorker(RecordingWorker):
    """Hands out rollouts that others pushed."""

    def __init__(self, rollouts: list[Rollout]) -> None:
        super().__init__()
        self.rollouts = rollouts

    async def pushed(self, run_id: str, *, after: int, limit: int) -> Page[Rollout]:
        rows = self.rollouts[after : after + limit]
        return Page[Rollout](data=rows, next=str(after + len(rows)))


async def test_pushed_rollouts_that_a_pause_cut_off_are_not_taken_for_read(
    spec_of: Any, building: Build, random_rollouts: Any
) -> None:
    """No teacher answers, so the pause comes after the rollouts were read and before anything was learned."""
    pushed = {"source": "pushed", "prompts_per_step": 4, "max_new_tokens": 8}
    given = spec_of(2).model_dump(mode="json", exclude={"data": {"train"}})
    spec = RunSpec.model_validate(given | {"rollout": pushed})
    worker = PushingWorker(random_rollouts(8))
    run = await building(spec, worker, MemoryQueue())
    assert run.pipeline is not None
    async with asyncio.timeout(30), run.pipeline:
        cut_off = asyncio.create_task(loop.step(run))
        assert run.sources.inbox is not None
        while run.sources.inbox.after < 4:
            await asyncio.sleep(0.01)
        run.session.request("pause")
        with pytest.raises(StopRun):
            await cut_off
    assert await keeping.commit(run)
    again = await building(spec, worker, MemoryQueue(), epoch=2, checkpoint=worker.newest)
    assert again.sources.inbox is not None
    assert again.sources.inbox.after == again.ledger.pushed_after == 0


class PowerCut(Exception):
    """The process is gone."""


class CutWorker(RecordingWorker):
    """The power goes when this step is reported."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    async def report_step(self, run_id: str, report: StepReport) -> None:
        if report.step == self.step:
            raise PowerCut
        await super().report_step(run_id, report)


@pytest.mark.parametrize(
    "own",
    [{"objective": SAMPLED}, {"objective": TAID}, {"objective": TOP, "rollout": ADAPTIVE}],
    ids=["sampled", "clock", "replay"],
)
async def test_a_run_that_was_cut_and_resumed_ends_where_one_that_was_not_ends(
    spec_of: Any, building: Build, engine: FakeEngine, own: dict[str, Any]
) -> None:
    """Cut after step 3, resumed from the checkpoint of step 2: the same weights, moments, totals and text."""
    spec = RunSpec.model_validate(spec_of(4).model_dump(mode="json") | own)
    straight, cut, resumed = RecordingWorker(), CutWorker(3), RecordingWorker()
    one, other = MemoryQueue(), MemoryQueue()
    async with working(one, engine):
        whole = await building(spec, straight, one, "whole")
        await finish(whole)
    async with working(other, engine):
        with pytest.raises(PowerCut):
            await finish(await building(spec, cut, other, "cut"))
        second = await building(spec, resumed, other, "cut", epoch=2, checkpoint=cut.newest)
        assert second.student.step == 2
        await finish(second)
    assert resumed.events[0] == "resumed at step 2"
    assert [row.step for row in (*cut.steps, *resumed.steps)] == [0, 1, 2, 3, 4]
    for (name, mine), (_, theirs) in zip(whole.student.trained.items(), second.student.trained.items(), strict=True):
        assert torch.equal(mine, theirs), name
        for key, moment in whole.student.optimizer.adamw.state[mine].items():
            assert torch.equal(moment, second.student.optimizer.adamw.state[theirs][key]), (name, key)
    assert whole.ledger == second.ledger
    assert (whole.ledger.clock.share is None) == (own["objective"] is not TAID)
    kept = [[r.model_dump_json() for r in replay.rollouts] for run in (whole, second) if (replay := run.sources.replay)]
    assert kept[:1] == kept[1:]
    assert [r.id for r in straight.steps[-1].rollouts] == [r.id for r in resumed.steps[-1].rollouts]
    assert straight.commits[-1].weights_sha256 == resumed.commits[-1].weights_sha256


async def test_an_adaptive_run_tells_what_it_learned_from_and_asks_about_older_text_again(
    spec_of: Any, building: Build, engine: FakeEngine, worker: RecordingWorker
) -> None:
    spec = RunSpec.model_validate(spec_of(4).model_dump(mode="json") | {"objective": TOP, "rollout": ADAPTIVE})
    queue = MemoryQueue()
    run = await building(spec, worker, queue)
    async with working(queue, engine):
        await finish(run)
    rows = [row.metrics for row in worker.steps[1:]]
    assert {row["replayed"] for row in rows} == {0.0, 1.0}
    for step, row in enumerate(rows):
        assert (cast(float, row["lag"]) > 0) == (row["replayed"] == 1.0)
        assert row["learned_tokens"] == row["tokens"]
        assert cast(float, row["lag_max"]) <= step
        if row["replayed"]:
            assert row["ratio"] != 1
    used = np.diff([row.teacher_tokens for row in worker.steps]).tolist()
    assert all(tokens >= cast(float, row["tokens"]) for tokens, row in zip(used, rows, strict=True))


async def test_a_spent_budget_of_teacher_tokens_ends_the_run_well(
    spec_of: Any, building: Build, engine: FakeEngine, worker: RecordingWorker
) -> None:
    queue = MemoryQueue()
    async with working(queue, engine):
        await finish(await building(spec_of(50, budget={"teacher_tokens": 60}), worker, queue))
    last = worker.steps[-1]
    assert 1 <= last.step < 50
    assert "accuracy" in last.metrics
    assert worker.steps[-2].teacher_tokens < 60 <= last.teacher_tokens
    assert worker.events == [f"the run ends at step {last.step}: budget.teacher_tokens is spent"]
    assert (worker.commits[-1].step, worker.commits[-1].final) == (last.step, True)


async def test_a_spent_budget_of_dollars_ends_the_run_at_the_prices_that_its_teacher_tells(
    spec_of: Any, building: Build, engine: FakeEngine, worker: RecordingWorker
) -> None:
    queue = MemoryQueue()
    spec = spec_of(50, budget={"teacher_usd": 0.06})
    async with working(queue, engine):
        await finish(await building(spec, worker, queue, prices=Prices(input=1000.0)))
    last = worker.steps[-1]
    assert worker.events == [f"the run ends at step {last.step}: budget.teacher_usd is spent"]
    spent = [cast(float, row.metrics["teacher_usd"]) for row in worker.steps[1:]]
    assert spent == pytest.approx([row.teacher_tokens / 1000 for row in worker.steps[1:]])
    assert [0.0, *spent][-2] < 0.06 <= spent[-1]


async def test_a_spent_budget_of_time_ends_the_run_before_its_next_step(
    spec_of: Any, building: Build, worker: RecordingWorker
) -> None:
    run = await building(spec_of(50, budget={"wall_clock_s": 3600.0}), worker, MemoryQueue())
    run.started_s -= 3600.0
    await finish(run)
    assert [row.step for row in worker.steps] == [0]
    assert worker.events == ["the run ends at step 0: budget.wall_clock_s is spent"]
    assert (worker.commits[-1].step, worker.commits[-1].final) == (0, True)


async def unscored(engine: FakeEngine, request: Any) -> bytes:
    """A reply that is whole and says of every token that it was not scored."""
    (group,) = request.groups()
    rows = group.scored_tokens
    nothing = np.full(rows, np.nan, dtype=np.float32)
    block = TokenScores(start=len(group.prompt_ids), valid=np.zeros(rows, bool), sampled_logprob=nothing)
    usage = Usage(forward_tokens=rows)
    return encode_reply(ScoreReply(scores=(block,), provenance=engine.provenance, usage=usage))


async def test_steps_without_a_scored_token_are_counted_and_change_nothing(
    spec_of: Any, building: Build, engine: FakeEngine, worker: RecordingWorker
) -> None:
    queue = MemoryQueue()
    run = await building(spec_of(3, diagnostics={"top_k": 0, "held_out": 0}), worker, queue)
    before = weights(run)
    async with answering(queue, unscored, engine):
        await finish(run)
    assert [row.step for row in worker.steps] == [0, 1, 2, 3]
    for row in worker.steps[1:]:
        assert not row.metrics["learned_tokens"]
        assert row.metrics["grad_norm"] is None
        assert cast(float, row.metrics["tokens"]) > 0
    assert worker.steps[-1].teacher_tokens == worker.steps[-1].student_tokens > 0
    assert not any(run.student.optimizer.adamw.state.values())
    assert all(torch.equal(p, before[name]) for name, p in run.student.trained.items())
