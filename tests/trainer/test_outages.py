"""A teacher that is lost: who is asked in its place, what is left out, who waits, and that it is asked again once back.

Silence is counted by the presence's own clock, which the tests advance; a real second is nothing against its patience.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, cast

import numpy as np
import pytest
from toy_teacher import answering, honest, working

from tutelage.engines import FakeOptions
from tutelage.engines.fake import FakeEngine
from tutelage.queue import Job, MemoryQueue, Put, QueueLimits
from tutelage.trainer.answers import Answers
from tutelage.trainer.asking import Asker
from tutelage.trainer.exits import TeacherOutage
from tutelage.trainer.fates import Ended, Fates, failed_over
from tutelage.trainer.ledger import Ledger
from tutelage.trainer.marking import Scored
from tutelage.trainer.pipeline import Pipeline
from tutelage.trainer.presence import Presence
from tutelage.trainer.session import Session
from tutelage_client.errors import ServiceUnreachable
from tutelage_client.wire import Rollout

SAMPLED = {"kind": "divergence", "divergence": "reverse_kl", "support": {"kind": "sampled"}}
FAILOVER = [{"name": "left", "on_loss": "failover", "failover_to": "right"}]
SKIP = [{"name": "left", "tags": ["l"], "on_loss": "skip"}, {"name": "right"}]
PATIENCE_S = 60.0  # the default
DEADLINE_S = 20.0

Make = Callable[..., Pipeline]


@pytest.fixture
def engines() -> dict[str, FakeEngine]:
    """Two toy teachers that never agree."""
    return {name: FakeEngine(FakeOptions(seed=seed), name) for seed, name in enumerate(("left", "right"))}


@pytest.fixture
def make(make_spec: Any, session: Session, engines: dict[str, FakeEngine]) -> Make:
    def pipeline(queue: Any, teachers: Sequence[dict[str, Any]], away_s: float = 10.0) -> Pipeline:
        asker = Asker(queue, "run-1", make_spec(SAMPLED, teachers=list(teachers)))
        provenances = {name: engine.provenance for name, engine in engines.items()}
        return Pipeline(Answers(asker, session, provenances, Ledger()), away_s)

    return pipeline


@pytest.fixture
def rollouts(make_rollout: Any) -> list[Rollout]:
    return [make_rollout(i, [2 + i], [3, 4, 5], tag="l" if i % 2 else None) for i in range(4)]


async def all_of(rollouts: Sequence[Rollout]) -> AsyncIterator[list[Rollout]]:
    yield list(rollouts)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.001)


def presence(pipeline: Pipeline) -> Presence:
    return pipeline.answers.asker.presence


def begun(pipeline: Pipeline, rollouts: Sequence[Rollout]) -> asyncio.Task[list[Scored]]:
    """A step under way."""

    async def scored() -> list[Scored]:
        async with asyncio.timeout(DEADLINE_S):
            return (await pipeline.scored(all_of(rollouts)))[0]

    return asyncio.create_task(scored())


async def lose(pipeline: Pipeline, teacher: str, missing: int) -> None:
    """Once so many answers of the newest step are missing and nobody else owes one: let its patience pass."""
    await until(lambda: pipeline.open and pipeline.open[-1].whole and len(pipeline.open[-1].outstanding) == missing)
    await until(lambda: teacher in presence(pipeline).heard_s)
    presence(pipeline).listen(PATIENCE_S)
    events = cast("Any", pipeline.answers.session.worker).events
    await until(lambda: any(f"teacher {teacher!r} has not answered" in message for message in events))


def marks_of(engine: FakeEngine, rollout: Rollout) -> Any:
    before = np.concatenate([rollout.prompt_ids[-1:], rollout.completion_ids[:-1]])
    return engine.logprob_VV[before, rollout.completion_ids].astype(np.float32)


def marked_by(scored: Sequence[Scored], engine: FakeEngine) -> bool:
    """Whether this teacher gave all the scores, by name and by number."""
    return all(
        each.teacher == engine.provenance.teacher
        and each.scores is not None
        and each.scores.sampled_logprob is not None
        and np.array_equal(each.scores.sampled_logprob, marks_of(engine, each.rollout))
        for each in scored
    )


async def test_a_lost_teachers_questions_go_to_its_stand_in_and_come_back_with_it(
    make: Make, rollouts: list[Rollout], engines: dict[str, FakeEngine], session: Session, worker: Any
) -> None:
    queue = MemoryQueue()
    pipeline = make(queue, FAILOVER)
    refs, ledger = pipeline.answers.asker.spec.teachers, pipeline.answers.ledger
    async with pipeline, working(queue, engines["right"]):
        first = begun(pipeline, rollouts)
        await lose(pipeline, "left", missing=4)
        assert marked_by(scored := await first, engines["right"])
        assert failed_over(scored, refs) == {"failed_over": 4}
        assert set(ledger.tokens_of) == {"right"}
        assert "'right', which is another model" in worker.events[-1]
        await until(lambda: not session.conditions["teacher_available/left"])
        assert session.conditions["teacher_available/right"]
        assert marked_by(await begun(pipeline, rollouts), engines["right"])  # at once, without any patience
        before = dict(ledger.tokens_of)
        async with working(queue, engines["left"]):
            await until(lambda: "teacher 'left' answers again" in worker.events[-1])
            assert marked_by(scored := await begun(pipeline, rollouts), engines["left"])
            await until(lambda: session.conditions["teacher_available"])
    assert failed_over(scored, refs) == {"failed_over": 0}
    assert ledger.tokens_of["right"] == before["right"]
    assert ledger.tokens_of["left"] == before["right"] / 2, "what it answered late is neither learned from nor charged"


async def test_only_what_is_missing_goes_to_the_stand_in(
    make: Make, rollouts: list[Rollout], engines: dict[str, FakeEngine]
) -> None:
    queue, taken = MemoryQueue(), []

    async def answer_two(engine: FakeEngine, request: Any) -> bytes:
        taken.append(request)
        if len(taken) > 2:
            await asyncio.Event().wait()
        return await honest(engine, request)

    pipeline = make(queue, FAILOVER)
    async with pipeline, answering(queue, answer_two, engines["left"]):
        step = begun(pipeline, rollouts)
        await lose(pipeline, "left", missing=2)
        async with working(queue, engines["right"]):
            scored = await step
    assert [each.teacher for each in scored].count("right") == 2
    for each in scored:
        assert marked_by([each], engines[str(each.teacher)])


async def test_with_both_lost_the_run_waits_for_whoever_is_back_first(
    make: Make, rollouts: list[Rollout], engines: dict[str, FakeEngine], worker: Any
) -> None:
    queue = MemoryQueue()
    pipeline = make(queue, FAILOVER)
    async with pipeline:
        step = begun(pipeline, rollouts)
        await lose(pipeline, "left", missing=4)
        put_to_left = {question.job.id for question in presence(pipeline).lost.values()}
        await lose(pipeline, "right", missing=4)
        assert "whoever is back first is asked" in worker.events[-1]
        async with working(queue, engines["left"]):
            await until(lambda: "left" not in presence(pipeline).lost)
            assert marked_by(await step, engines["left"])
    assert put_to_left <= queue._records.keys(), "the same question of the same teacher is the same job"


async def test_lines_of_a_lost_teacher_are_left_out_and_counted_until_it_is_back(
    make: Make, rollouts: list[Rollout], engines: dict[str, FakeEngine], worker: Any
) -> None:
    queue = MemoryQueue()
    pipeline = make(queue, SKIP)
    async with pipeline, working(queue, engines["right"]):
        first = begun(pipeline, rollouts)
        await lose(pipeline, "left", missing=2)
        scored = await first
        assert [each.left_out for each in scored] == [None, "skipped", None, "skipped"]
        assert marked_by(scored[::2], engines["right"])
        fates = Fates(submitted=4).after(Ended.of(scored, [], asks_teacher=True, in_pairs=False))
        assert (fates.trained, fates.skipped, fates.queued) == (2, 2, 0)
        assert pipeline.answers.ledger.dropped_rollouts == 0
        others = [rollout.model_copy(update={"id": f"second{i}"}) for i, rollout in enumerate(rollouts)]
        assert [each.left_out for each in await begun(pipeline, others)] == [None, "skipped", None, "skipped"]
        assert (await queue.depth("left")).waiting == 2, "while it is lost nothing more is put to it"
        async with working(queue, engines["left"]):
            await until(lambda: "teacher 'left' answers again" in worker.events[-1])
            scored = await begun(pipeline, [r.model_copy(update={"id": f"third{i}"}) for i, r in enumerate(rollouts)])
    assert marked_by(scored[1::2], engines["left"])
    assert [message.partition(";")[2] for message in worker.events if "has not answered" in message] == [
        " its lines are left out of steps that have others, until it answers"
    ]


async def test_a_step_that_would_have_nothing_left_waits(
    make: Make, rollouts: list[Rollout], engines: dict[str, FakeEngine]
) -> None:
    queue = MemoryQueue()
    pipeline = make(queue, SKIP)
    async with pipeline:
        step = begun(pipeline, rollouts[1::2])
        await lose(pipeline, "left", missing=2)
        looked = presence(pipeline).now_s
        await until(lambda: presence(pipeline).now_s > looked + 0.5)
        assert not step.done()
        async with working(queue, engines["left"]):
            scored = await step
    assert marked_by(scored, engines["left"])
    assert [each.left_out for each in scored] == [None, None]


@pytest.mark.parametrize("on_loss", ["pause", "skip", "failover"])
async def test_a_spent_budget_for_outages_ends_the_run(
    on_loss: str, make: Make, rollouts: list[Rollout], worker: Any
) -> None:
    more = {"failover_to": "right"} if on_loss == "failover" else {}
    pipeline = make(MemoryQueue(), [{"name": "left", "on_loss": on_loss, "outage_budget_s": 3 * PATIENCE_S} | more])
    async with pipeline:
        step = begun(pipeline, rollouts)
        await lose(pipeline, "left", missing=4)
        if on_loss == "failover":
            await lose(pipeline, "right", missing=4)
        assert "has not answered for 6" in worker.events[0]
        presence(pipeline).listen(3 * PATIENCE_S)
        with pytest.raises(TeacherOutage, match="its outage_budget_s is 180") as spent:
            await step
    assert spent.value.code == "teacher_outage"


async def test_with_on_loss_fail_a_lost_teacher_ends_the_run(make: Make, rollouts: list[Rollout]) -> None:
    pipeline = make(MemoryQueue(), [{"name": "left", "on_loss": "fail"}])
    async with pipeline:
        step = begun(pipeline, rollouts)
        await until(lambda: "left" in presence(pipeline).heard_s)
        presence(pipeline).listen(PATIENCE_S)
        with pytest.raises(TeacherOutage, match='on_loss = "fail" ends the run'):
            await step


async def test_a_stand_in_that_answers_spends_no_budget(
    make: Make, rollouts: list[Rollout], engines: dict[str, FakeEngine]
) -> None:
    queue = MemoryQueue()
    pipeline = make(queue, [FAILOVER[0] | {"outage_budget_s": 2 * PATIENCE_S}])
    async with pipeline, working(queue, engines["right"]):
        first = begun(pipeline, rollouts)
        await lose(pipeline, "left", missing=4)
        await first
        presence(pipeline).listen(10 * PATIENCE_S)
        assert marked_by(await begun(pipeline, rollouts), engines["right"])


class UnreachableQueue(MemoryQueue):
    """It takes questions; while it is away its answers cannot be read."""

    away, reads = True, 0

    async def answers(self, reply_to: str, *, after: str, wait_s: float) -> Any:
        self.reads += 1
        if self.away:
            raise ServiceUnreachable("queue", "it is away")
        return await super().answers(reply_to, after=after, wait_s=wait_s)


async def test_while_the_queue_is_away_nobody_is_silent(
    make: Make, rollouts: list[Rollout], engines: dict[str, FakeEngine]
) -> None:
    queue = UnreachableQueue()
    pipeline = make(queue, FAILOVER)
    async with pipeline:
        step = begun(pipeline, rollouts)
        await until(lambda: queue.reads == 3)
        assert presence(pipeline).now_s == 0
        queue.away = False
        async with working(queue, engines["left"]):
            assert marked_by(await step, engines["left"])


async def test_a_question_that_is_given_up_is_no_outage(
    make: Make, rollouts: list[Rollout], engines: dict[str, FakeEngine]
) -> None:
    """However many are given up, after however long: whoever gives them up is there."""
    queue = MemoryQueue()
    pipeline = make(queue, FAILOVER)

    async def give_up_late(engine: FakeEngine, request: Any) -> bytes | None:
        presence(pipeline).listen(0.9 * PATIENCE_S)
        return None if request.groups()[0].prompt_ids[0] < 5 else await honest(engine, request)

    async with pipeline, answering(queue, give_up_late, engines["left"]), working(queue, engines["right"]):
        scored = await begun(pipeline, rollouts)
        assert presence(pipeline).lost == {}
    assert [each.left_out for each in scored] == ["dead_lettered"] * 3 + [None]
    assert marked_by(scored[3:], engines["left"])


class ForgetfulQueue:
    """A queue that is another one, empty, after `wipe`."""

    def __init__(self) -> None:
        self.inner = MemoryQueue()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def put(self, jobs: Sequence[Job]) -> list[Put]:
        return await self.inner.put(jobs)

    def wipe(self) -> None:
        self.inner = MemoryQueue()


async def test_a_lost_teacher_is_noticed_again_also_through_a_queue_that_forgot_its_questions(
    make: Make, rollouts: list[Rollout], engines: dict[str, FakeEngine], worker: Any
) -> None:
    queue: Any = ForgetfulQueue()
    pipeline = make(queue, FAILOVER, away_s=0.1)
    async with pipeline:
        async with working(queue, engines["right"]):
            first = begun(pipeline, rollouts)
            await lose(pipeline, "left", missing=4)
            await first
        queue.wipe()
        async with working(queue, engines["left"]):
            await until(lambda: "teacher 'left' answers again" in worker.events[-1])
            assert marked_by(await begun(pipeline, rollouts), engines["left"])


async def test_a_lost_teachers_full_queue_holds_up_no_step_that_may_go_on_without_it(
    make: Make, rollouts: list[Rollout], engines: dict[str, FakeEngine]
) -> None:
    queue = MemoryQueue(QueueLimits(max_tokens=4))  # room for one question of each teacher
    pipeline = make(queue, SKIP)
    async with pipeline, working(queue, engines["right"]):
        step = begun(pipeline, rollouts)
        await until(lambda: pipeline.open and pipeline.open[0].has_marks and len(pipeline.open[0].outstanding) == 2)
        assert len(pipeline.open[0].outside) == 1
        presence(pipeline).listen(PATIENCE_S)
        assert [each.left_out for each in await step] == [None, "skipped", None, "skipped"]


@pytest.mark.parametrize("teachers", [FAILOVER, SKIP], ids=["failover", "skip"])
async def test_at_the_end_of_a_run_nothing_of_it_stays_with_a_lost_teacher(
    teachers: list[dict[str, Any]], make: Make, rollouts: list[Rollout], engines: dict[str, FakeEngine]
) -> None:
    queue = MemoryQueue()
    pipeline = make(queue, teachers)
    async with pipeline, working(queue, engines["right"]):
        step = begun(pipeline, rollouts)
        await lose(pipeline, "left", missing=4 if teachers is FAILOVER else 2)
        await step
        assert (await queue.depth("left")).waiting > 0
        await pipeline.outages.give_up(is_waiting=False)
        assert (await queue.depth("left")).waiting == 0
