"""Runs whose text samplers write: it is the text that the trainer would have written, and none of it is lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from recording_worker import RecordingWorker
from students_elsewhere import sampling
from toy_teacher import working
from whole_runs import Build, finish

from tutelage.engines.fake import FakeEngine
from tutelage.engines.sampling import Sampled
from tutelage.engines.snapshots.local import LocalStudent
from tutelage.queue import Answer, Delivery, Job, MemoryQueue, QueueLimits
from tutelage.trainer.access import Access
from tutelage.trainer.exits import StopRun
from tutelage.trainer.run import Run
from tutelage.trainer.samplers import Wanted, samplers_of
from tutelage.trainer.session import Session
from tutelage_client.errors import InvalidInput
from tutelage_client.spec import RunSpec
from tutelage_client.wire import Rollout, SampleReply, SampleRequest, SnapshotRef, sampler_queue

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
STEPS, A_STEP = 4, 8
FATES = ("trained", "stale", "dead_lettered", "dropped", "queued")
QUEUE = sampler_queue("pool")


@pytest.fixture
def elsewhere(spec_of: Any) -> Callable[..., RunSpec]:
    """A short run whose text samplers write."""

    def make(max_lag: int = 0, sampler: str | None = "pool", **others: Any) -> RunSpec:
        rollout = {"prompts_per_step": 4, "samples_per_prompt": 2, "max_new_tokens": 8, "max_lag": max_lag}
        shown = {"stabilizers": [{"kind": "ratio_clip"}], "eval": {"every": 1}, "diagnostics": {"held_out": 0}}
        return spec_of(STEPS, rollout=rollout | {"sampler": sampler}, **(shown | others))

    return make


def conserved(row: Any) -> bool:
    return row["rollouts/submitted"] == sum(row[f"rollouts/{fate}"] for fate in FATES)


def texts(worker: RecordingWorker) -> list[tuple[str, int, list[int]]]:
    """What was shown of each step: id, version and tokens."""
    shown: list[Rollout] = [rollout for report in worker.steps for rollout in report.rollouts]
    return [(each.id, each.policy_version, each.completion_ids.tolist()) for each in shown]


@pytest.mark.parametrize("lora", [None, {"rank": 2, "alpha": 4}])
async def test_two_samplers_write_what_the_trainer_itself_would(
    lora: Any, elsewhere: Any, building: Build, engine: FakeEngine, worker: RecordingWorker
) -> None:
    """Token for token, whichever of them has a text, and what else runs beside it."""
    queue, alone = MemoryQueue(), RecordingWorker()
    given = {"student": {"lora": lora}} if lora else {}
    async with working(queue, engine):
        own = await building(elsewhere(sampler=None, **given), alone, queue, name="alone")
        await finish(own)
        both = LocalStudent("cpu"), LocalStudent("cpu")
        async with sampling(queue, *both, max_texts=3):
            run = await building(elsewhere(**given), worker, queue)
            await finish(run)
    assert texts(worker) == texts(alone)
    assert len(texts(worker)) == STEPS * 4
    for mine, other in zip(weights(run), weights(own), strict=True):
        torch.testing.assert_close(mine, other, atol=1e-4, rtol=0)
    rows = [report.metrics for report in worker.steps[1:]]
    assert all(conserved(row) and row["lag_max"] == 0 for row in rows)
    assert rows[-1]["rollouts/trained"] == STEPS * A_STEP
    assert worker.events == alone.events
    assert (await queue.depth(QUEUE)).dead == 0


def weights(run: Run) -> Sequence[torch.Tensor]:
    return list(run.student.trained.values())


async def test_text_is_of_the_version_that_it_says_and_within_the_bound(
    elsewhere: Any, building: Build, engine: FakeEngine, worker: RecordingWorker
) -> None:
    queue = MemoryQueue()
    async with working(queue, engine), sampling(queue):
        run = await building(elsewhere(max_lag=2), worker, queue)
        await finish(run)
    for report in worker.steps[1:]:
        assert conserved(report.metrics)
        assert report.metrics["lag_max"] in (0, 1, 2)
        for rollout in report.rollouts:
            assert report.step - 1 - 2 <= rollout.policy_version <= report.step - 1
    assert worker.steps[-1].metrics["rollouts/trained"] == STEPS * A_STEP


async def test_no_more_snapshots_are_kept_than_the_bound_allows_and_none_after_the_end(
    elsewhere: Any, building: Build, engine: FakeEngine, worker: RecordingWorker
) -> None:
    queue = MemoryQueue()
    run = await building(elsewhere(max_lag=1), worker, queue)
    folder, seen = run.artefacts / "snapshots", set[int]()
    (folder / "e0" / "00000009-left").mkdir(parents=True)
    run.passing = lambda _: seen.add(len(list(folder.glob("e*/0*"))))
    assert run.samplers is not None
    async with working(queue, engine), sampling(queue), run.samplers:
        await finish(run)
        assert not (folder / "e0").exists(), "an earlier attempt's"
    assert max(seen) == 2
    assert list(folder.glob("e*")) == []


@asynccontextmanager
async def answering(queue: MemoryQueue, reply: Callable[[SampleRequest], Any]) -> AsyncGenerator[list[Delivery]]:
    """Some other sampler: reply(request) makes the bytes, or a reason to give the text up."""
    taken: list[Delivery] = []

    async def work() -> None:
        while True:
            for delivery in await queue.lease(QUEUE, "other", count=8, wait_s=1.0):
                taken.append(delivery)
                said = await reply(SampleRequest.model_validate_json(delivery.job.payload))
                if isinstance(said, str):
                    await queue.fail(delivery, said, retry=False)
                else:
                    await queue.answer([(delivery, said)])

    task = asyncio.create_task(work())
    try:
        yield taken
    finally:
        assert not task.done(), task.exception()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Writes:
    """A sampler that says another version than it was asked for, or nothing that can be used."""

    def __init__(self, changes: Callable[[SampleRequest], Any]) -> None:
        self.student = LocalStudent("cpu")
        self.changes = changes

    async def __call__(self, request: SampleRequest) -> bytes | str:
        await self.student.load(request.snapshot)
        ((_, text),) = [one async for ended in self.student.write([request]) for one in ended]
        changed = self.changes(request)
        if isinstance(changed, str | bytes):
            return changed
        # Not validated: that of a broken sampler would not be either.
        return SampleReply.model_construct(text=text.model_copy(update=changed)).model_dump_json().encode()


@pytest.mark.parametrize("max_lag", [0, 1])
async def test_text_of_too_old_a_student_is_dropped_and_counted_as_stale(
    max_lag: int, elsewhere: Any, building: Build, engine: FakeEngine, worker: RecordingWorker
) -> None:
    def older(request: SampleRequest) -> dict[str, int]:
        version = request.snapshot.policy_version
        return {"policy_version": max(0, version - 2) if request.place == 1 else version}

    queue = MemoryQueue()
    async with working(queue, engine), answering(queue, Writes(older)):
        run = await building(elsewhere(max_lag), worker, queue)
        await finish(run)
    rows: list[Any] = [report.metrics for report in worker.steps[1:]]
    assert all(conserved(row) and row["lag_max"] <= max_lag for row in rows)
    late = sum(max(0, version) - max(0, version - 2) > max_lag for version in range(STEPS)) if max_lag == 0 else None
    stale = rows[-1]["rollouts/stale"]
    assert stale > 0
    assert late is None or stale == late
    assert rows[-1]["rollouts/trained"] == STEPS * A_STEP - stale


async def test_what_samplers_give_up_the_trainer_writes_itself_with_the_same_draws(
    elsewhere: Any, building: Build, engine: FakeEngine, worker: RecordingWorker
) -> None:
    queue, alone = MemoryQueue(), RecordingWorker()
    refuses = Writes(lambda request: "it was too hard" if request.place % 3 == 0 else {})
    async with working(queue, engine), answering(queue, refuses):
        await finish(await building(elsewhere(sampler=None), alone, queue, name="alone"))
        await finish(await building(elsewhere(), worker, queue))
    assert texts(worker) == texts(alone)
    assert conserved(worker.steps[-1].metrics)
    told = [event for event in worker.events if "the trainer writes them itself" in event]
    assert len(told) == STEPS
    assert told[0].startswith("3 of 8 texts of this step are not samplers', the last because: it was too hard;")
    assert worker.steps[-1].metrics["rollouts/trained"] == STEPS * A_STEP


TEXT: dict[str, Any] = {"policy_version": 3, "token_ids": [2, 1], "logprobs": [-1.0, -0.5], "finish_reason": "stop"}
NO_TEXT = {
    "given up": (None, "three died of it"),
    "not JSON": (b"\xff", "the answer is no text: 1 errors"),
    "no tokens": ({"token_ids": [], "logprobs": []}, "the answer is no text: 1 errors"),
    "a log-prob short": ({"logprobs": [-1.0]}, "the answer is no text: 1 errors"),
    "a log-prob that is none": ({"logprobs": [-1.0, None]}, "the answer is no text: 1 errors"),
    "gone": (b'{"text": null}', "did not find the snapshot"),
    "from a later student": ({"policy_version": 4}, "of policy version 4, which this attempt did not publish"),
}


@pytest.mark.parametrize("case", NO_TEXT)
def test_an_answer_without_a_text_of_the_snapshot_is_one_that_was_given_up(case: str) -> None:
    said, reason = NO_TEXT[case]
    payload = json.dumps({"text": TEXT | said}).encode() if isinstance(said, dict) else said
    ref = SnapshotRef(path="s", sha256="0" * 64, policy_version=3)
    job = Job("a", QUEUE, "r", "run-1", 3, b"")
    wanted = Wanted(ref, {"a": (5, job), "b": (6, job)})
    assert wanted.end(Answer("a", payload, "three died of it" if payload is None else None)) is None
    assert (wanted.given_up, set(wanted.jobs)) == ({5}, {"b"})
    assert wanted.reason is not None and reason in wanted.reason
    sound = Answer("b", json.dumps({"text": TEXT}).encode())
    assert wanted.end(sound) == (3, Sampled(6, [2, 1], [-1.0, -0.5], "stop"))
    assert wanted.end(sound) is None, "announced twice, it counts once"


async def test_a_disk_that_takes_no_snapshot_costs_the_samplers_work_alone(
    elsewhere: Any, building: Build, engine: FakeEngine, worker: RecordingWorker
) -> None:
    queue = MemoryQueue()
    run = await building(elsewhere(), worker, queue)
    (run.artefacts / "snapshots").mkdir(parents=True)
    (run.artefacts / "snapshots" / "e1").write_text("in the way")
    async with working(queue, engine):
        await finish(run)
    assert worker.steps[-1].metrics["rollouts/trained"] == STEPS * A_STEP
    assert any("the snapshot of policy version 0 cannot be written" in event for event in worker.events)


async def test_work_that_the_queue_forgot_is_put_again(
    elsewhere: Any, building: Build, engine: FakeEngine, worker: RecordingWorker
) -> None:
    queue = MemoryQueue()
    run = await building(elsewhere(), worker, queue)
    assert run.samplers is not None
    run.samplers.away_s = 0.05
    training = asyncio.create_task(finish(run))
    async with asyncio.timeout(20):
        while (await queue.depth(QUEUE)).waiting < A_STEP:
            await asyncio.sleep(0.01)
    await queue.cancel("run-1")
    async with asyncio.timeout(20):
        while "sampler" not in " ".join(worker.events):
            await asyncio.sleep(0.01)
    assert run.session.conditions["sampler_available"] is False
    async with working(queue, engine), sampling(queue):
        await training
    assert run.session.conditions["sampler_available"] is True
    assert any("start python -m tutelage.sampler --name pool" in event for event in worker.events)
    assert any("write again" in event for event in worker.events)
    assert worker.steps[-1].metrics["rollouts/trained"] == STEPS * A_STEP


async def test_texts_that_find_no_room_are_put_when_there_is_some(
    elsewhere: Any, building: Build, engine: FakeEngine, worker: RecordingWorker
) -> None:
    queue = MemoryQueue(QueueLimits(max_tokens=25))
    async with working(queue, engine), sampling(queue):
        await finish(await building(elsewhere(), worker, queue))
    assert worker.steps[-1].metrics["rollouts/trained"] == STEPS * A_STEP


async def test_a_run_that_ends_early_leaves_no_text_to_be_written(
    elsewhere: Any, building: Build, engine: FakeEngine, worker: RecordingWorker
) -> None:
    queue = MemoryQueue()
    run = await building(elsewhere(max_lag=2, budget={"teacher_tokens": 1}), worker, queue)
    async with working(queue, engine), sampling(queue):
        await finish(run)
    assert run.student.step < STEPS
    depth = await queue.depth(QUEUE)
    assert (depth.waiting, depth.leased) == (0, 0)
    assert conserved(worker.steps[-1].metrics)


async def test_a_run_can_be_paused_while_nobody_writes(
    elsewhere: Any, building: Build, worker: RecordingWorker
) -> None:
    queue = MemoryQueue()
    run = await building(elsewhere(), worker, queue)
    training = asyncio.create_task(finish(run))
    async with asyncio.timeout(20):
        while (await queue.depth(QUEUE)).waiting < A_STEP:
            await asyncio.sleep(0.01)
    run.session.request("pause")
    with pytest.raises(StopRun):
        await training


def test_ranks_do_not_go_with_samplers(elsewhere: Any, session: Session) -> None:
    shared: Any = SimpleNamespace(processes=2)
    with pytest.raises(InvalidInput, match="several ranks write the text of a student that they share"):
        samplers_of(session, elsewhere(), shared, Path("student"), MemoryQueue(), Access())
