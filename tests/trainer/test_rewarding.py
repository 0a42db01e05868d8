"""Runs that learn from rewards, in process: graders, judges on the queue, groups that wait, and rewards that fail."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, nullcontext
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
from grading_processes import grading
from recording_worker import RecordingWorker, lease
from single import answer_one
from toy_teacher import honest

from tutelage.engines.fake import FakeEngine
from tutelage.queue import MemoryQueue
from tutelage.trainer.build import build
from tutelage.trainer.exits import TeacherFailed
from tutelage.trainer.loop import train
from tutelage.trainer.run import Run
from tutelage.trainer.session import Session
from tutelage_client.errors import InvalidInput
from tutelage_client.methods import METHODS
from tutelage_client.spec import parse_spec
from tutelage_client.wire import (
    Reward,
    RewardItem,
    RewardReply,
    RewardRequest,
    TeacherInfo,
    TeacherView,
    Usage,
    decode_request,
    decode_reward_request,
    encode_reward_reply,
    is_reward_request,
)

DEADLINE_S = 60.0
WITH_REWARD = [each.name for each in METHODS if each.composition and "reward" in each.composition]
RUBRIC = {"kind": "rubric", "rubric": "It has many different words."}
PAIRWISE = {"kind": "pairwise", "rubric": "The one with more different words."}
COST = Usage(forward_tokens=10, generated_tokens=1)
Value = Callable[[RewardItem], float | None]


def variety(item: RewardItem) -> float:
    return len(set(item.completion.split())) / 10


@asynccontextmanager
async def judging(queue: MemoryQueue, engine: FakeEngine, value: Value) -> AsyncGenerator[list[RewardRequest]]:
    """A teacher that scores honestly and judges by `value`; None: it cannot say."""
    asked: list[RewardRequest] = []

    async def reply(payload: bytes) -> bytes:
        if not is_reward_request(payload):
            return await honest(engine, decode_request(payload))
        request = decode_reward_request(payload)
        asked.append(request)
        values = [value(item) for item in request.items]
        rewards = tuple(Reward(value=v, valid=v is not None, detail={"reason": "no number"}) for v in values)
        return encode_reward_reply(RewardReply(rewards=rewards, provenance=engine.provenance, usage=COST))

    async def work() -> None:
        while True:
            for delivery in await queue.lease("toy", "w", count=8, wait_s=1.0):
                await answer_one(queue, delivery, await reply(delivery.job.payload))

    task = asyncio.create_task(work())
    try:
        yield asked
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def begin(engine: FakeEngine, tmp_path: Path, model_dir: Path, worker: RecordingWorker) -> Any:
    """A run of this spec, with four prompts a step and three samples a prompt."""

    async def start(queue: MemoryQueue, steps: int = 3, answer: str | None = "a", **sections: Any) -> Run:
        data = tmp_path / "prompts.jsonl"
        lines = [
            {"prompt": f"{a} {b}", "completion": "a b"} | ({"answer": answer} if answer else {})
            for a, b in zip("abcd", "efgh", strict=True)
        ]
        data.write_text("\n".join(map(json.dumps, lines)))
        rollout = {"prompts_per_step": 4, "samples_per_prompt": 3, "max_new_tokens": 6} | sections.pop("rollout", {})
        base = {"name": "rewarded", "seed": 5, "student": {"model": str(model_dir)}, "data": {"train": str(data)}}
        optim = {"lr": 2e-2, "steps": steps, "max_grad_norm": 1e6}
        spec = parse_spec(base | {"rollout": rollout, "optim": optim} | sections)
        info = TeacherInfo(name="toy", capabilities=engine.capabilities, provenance=engine.provenance)
        view = TeacherView(name="toy", url="http://127.0.0.1:1", info=info, seen_at=datetime.now(UTC), available=True)
        held = lease({}, str(tmp_path / "run"), teachers={"toy": view.model_dump(mode="json")})
        return await build(Session(cast("Any", worker), held), spec, cast("Any", None), queue)

    return start


def rows_of(worker: RecordingWorker) -> list[dict[str, Any]]:
    return [dict(row.metrics) for row in worker.steps[1:]]


async def finish(run: Run) -> None:
    async with asyncio.timeout(DEADLINE_S), run.pipeline or nullcontext():
        await train(run)


@pytest.mark.parametrize("name", WITH_REWARD)
async def test_every_preset_with_a_reward_trains_three_steps(
    name: str, begin: Any, engine: FakeEngine, worker: RecordingWorker
) -> None:
    [method] = [each for each in METHODS if each.name == name]
    teachers = [] if method.needs == ("nothing",) else [{"name": "toy"}]
    by = {} if "text" in method.needs else {"reward": {"by": {"kind": "contains"}}}
    queue = MemoryQueue()
    async with judging(queue, engine, variety):
        run = await begin(queue, objective={"kind": "preset", "name": name}, teachers=teachers, **by)
        before = {key: p.detach().clone() for key, p in run.student.trained.items()}
        await finish(run)
    rows = rows_of(worker)
    assert len(rows) == 3
    assert all(row["learned_tokens"] == row["tokens"] > 0 for row in rows)
    assert all(row["reward"] is not None and row["unrewarded"] == 0 for row in rows)
    assert any(not p.equal(before[key]) for key, p in run.student.trained.items())


async def test_a_reward_without_a_teacher_is_earned_more_often(begin: Any, worker: RecordingWorker) -> None:
    run = await begin(
        MemoryQueue(),
        steps=12,
        objective={"kind": "reward"},
        reward={"by": {"kind": "contains"}},
        rollout={"samples_per_prompt": 8},
    )
    await finish(run)
    rewards = [row["reward"] for row in rows_of(worker)]
    assert rewards[0] < 0.5
    assert min(rewards[-3:]) > 0.8
    assert worker.steps[-1].teacher_tokens == 0


async def test_a_judge_is_paid_and_its_budget_ends_the_run(
    begin: Any, engine: FakeEngine, worker: RecordingWorker
) -> None:
    queue, judged = MemoryQueue(), {"objective": {"kind": "reward"}, "reward": {"by": RUBRIC}}
    async with judging(queue, engine, variety) as asked:
        await finish(await begin(queue, 9, teachers=[{"name": "toy"}], budget={"teacher_tokens": 200}, **judged))
    assert all(len(request.items) == 1 for request in asked)
    assert worker.steps[-1].step == 2  # 12 rollouts a step, 11 tokens each
    assert worker.steps[-1].teacher_tokens == 24 * 11
    assert any("budget.teacher_tokens is spent" in event for event in worker.events)


async def test_a_group_is_compared_in_one_question(begin: Any, engine: FakeEngine, worker: RecordingWorker) -> None:
    queue, judged = MemoryQueue(), {"objective": {"kind": "reward"}, "reward": {"by": PAIRWISE}}
    async with judging(queue, engine, variety) as asked:
        await finish(await begin(queue, 2, answer=None, teachers=[{"name": "toy"}], **judged))
    assert [len(request.items) for request in asked] == [3] * 8
    assert all(len({str(item.prompt) for item in request.items}) == 1 for request in asked)
    assert all(0 <= row["equal_groups"] <= 1 for row in rows_of(worker))


async def test_a_rollout_may_need_scores_and_a_reward(begin: Any, engine: FakeEngine, worker: RecordingWorker) -> None:
    queue = MemoryQueue()
    objective = {"kind": "divergence", "support": {"kind": "sampled"}}
    async with judging(queue, engine, variety) as asked:
        await finish(await begin(queue, 2, teachers=[{"name": "toy"}], objective=objective, reward={"by": RUBRIC}))
    assert len(asked) == 24
    for row in worker.steps[1:]:
        assert row.metrics["reverse_kl"] is not None
        assert row.metrics["learned_tokens"] == row.metrics["tokens"]


async def test_what_could_not_be_judged_is_left_out_and_counted(
    begin: Any, engine: FakeEngine, worker: RecordingWorker
) -> None:
    queue, judged = MemoryQueue(), {"objective": {"kind": "reward"}, "reward": {"by": RUBRIC}}

    def half(item: RewardItem) -> float | None:
        return None if item.prompt in ("a e", "b f") else variety(item)

    async with judging(queue, engine, half):
        await finish(await begin(queue, 1, teachers=[{"name": "toy"}], **judged))
    [row] = rows_of(worker)
    assert row["unrewarded"] == 6
    assert row["dropped"] == 0
    assert 0 < row["learned_tokens"] < row["tokens"]


async def test_a_judge_that_can_judge_nothing_ends_the_run(begin: Any, engine: FakeEngine) -> None:
    queue, judged = MemoryQueue(), {"objective": {"kind": "reward"}, "reward": {"by": RUBRIC}}
    async with judging(queue, engine, lambda _: None):
        run = await begin(queue, 1, teachers=[{"name": "toy"}], **judged)
        with pytest.raises(TeacherFailed, match="no rollout of this step has a valid rubric: no number"):
            await finish(run)


async def test_a_grader_without_answers_is_refused_before_the_first_rollout(begin: Any) -> None:
    with pytest.raises(InvalidInput, match="'exact_match' needs an \"answer\" on every line; line 1 has none"):
        await begin(MemoryQueue(), answer=None, objective={"kind": "reward"}, reward={})


ENDLESS = {"kind": "pattern", "pattern": r"(?:(?:\w| )+)+!"}
LONG = {"max_new_tokens": 40}


async def test_a_search_that_never_ends_is_a_reward_of_0_and_the_loop_that_beats_goes_on(begin: Any) -> None:
    by = ENDLESS | {"timeout_s": 0.5}
    run = await begin(MemoryQueue(), 1, objective={"kind": "reward"}, reward={"by": by}, rollout=LONG)
    beats: list[float] = []

    async def beat() -> None:
        while True:
            beats.append(asyncio.get_running_loop().time())
            await asyncio.sleep(0.05)

    async with asyncio.timeout(DEADLINE_S), run.ahead:
        beating = asyncio.create_task(beat())
        scored, _ = await run.ahead.taken(0)
        beating.cancel()
    assert "timed_out" in {s.reward.detail.get("outcome") for s in scored}
    assert {s.reward.value for s in scored} == {0.0}
    assert max(after - before for before, after in pairwise(beats)) < 5.0


async def test_an_attempt_that_ends_leaves_no_grading_behind(begin: Any, until: Any) -> None:
    by = ENDLESS | {"timeout_s": 60}
    run = await begin(MemoryQueue(), 1, objective={"kind": "reward"}, reward={"by": by}, rollout=LONG)
    async with asyncio.timeout(DEADLINE_S), run.ahead:
        taking = asyncio.create_task(run.ahead.taken(0))
        await until(lambda: grading("search"))
    assert grading("search") == set()
    with pytest.raises(asyncio.CancelledError):
        await taking
