"""Rollouts through a real queue to a real teacher and back: overlap, repeats, losses, and replies that lie."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import numpy as np
import pytest
from single import put_one
from toy_teacher import answering, honest, working

from tutelage.engines import FakeOptions
from tutelage.engines.fake import FakeEngine
from tutelage.queue import Job, MemoryQueue, Put, QueueLimits
from tutelage.trainer.answers import Answers
from tutelage.trainer.asking import Asker
from tutelage.trainer.exits import StopRun, TeacherFailed
from tutelage.trainer.ledger import Ledger
from tutelage.trainer.pipeline import Pipeline
from tutelage_client.wire import Rollout, decode_request

SAMPLED = {"kind": "divergence", "divergence": "reverse_kl", "support": {"kind": "sampled"}}
TOP_K = {"kind": "divergence", "support": {"kind": "student_top_k", "k": 3}}
DEADLINE_S = 15.0


async def stream(rollouts: Sequence[Rollout]) -> AsyncIterator[list[Rollout]]:
    for rollout in rollouts:
        yield [rollout]


async def one_step(pipeline: Pipeline, rollouts: Sequence[Rollout]) -> Any:
    """The only step of a run; it fails the test instead of hanging it."""
    async with asyncio.timeout(DEADLINE_S), pipeline:
        return await pipeline.scored(stream(rollouts))


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.fixture
def make_pipeline(make_spec: Any, session: Any) -> Any:
    def make(queue: Any, objective: dict[str, Any] = SAMPLED, on_loss: str = "pause", **fields: Any) -> Pipeline:
        spec = make_spec(objective, on_loss=on_loss)
        asker = Asker(queue, "run-1", spec, fields.pop("candidates", None))
        provenance = FakeEngine(FakeOptions(), "toy").provenance
        answers = Answers(asker, session, {"toy": provenance}, Ledger())
        return Pipeline(answers, **fields)

    return make


async def test_every_rollout_gets_its_own_scores_in_order_of_ids(make_pipeline: Any, random_rollouts: Any) -> None:
    queue, rollouts = MemoryQueue(), random_rollouts(12)
    pipeline = make_pipeline(queue)
    async with working(queue):
        scored, _ = await one_step(pipeline, rollouts[::-1])
    engine = FakeEngine(FakeOptions(), "toy")
    assert [s.rollout.id for s in scored] == [r.id for r in rollouts]
    for item in scored:
        previous = np.concatenate([item.rollout.prompt_ids[-1:], item.rollout.completion_ids[:-1]])
        expected = engine.logprob_VV[previous, item.rollout.completion_ids].astype(np.float32)
        np.testing.assert_array_equal(item.scores.sampled_logprob, expected)
    assert pipeline.answers.ledger.teacher_tokens == sum(
        len(r.prompt_ids) + len(r.completion_ids) - 1
        for r in rollouts  # the last token is scored, not read
    )


async def test_the_students_own_candidates_are_asked_and_kept(make_pipeline: Any, random_rollouts: Any) -> None:
    queue = MemoryQueue()

    def candidates(rollout: Rollout) -> Any:
        return np.tile(np.array([3, 4, 5], dtype=np.int32), (len(rollout.completion_ids), 1))

    async with working(queue):
        scored, _ = await one_step(make_pipeline(queue, TOP_K, candidates=candidates), random_rollouts(3))
    for item in scored:
        np.testing.assert_array_equal(item.candidate_ids, candidates(item.rollout))
        assert item.scores.candidate_logprob.shape == item.candidate_ids.shape


async def test_scoring_begins_before_the_last_rollout_is_written(make_pipeline: Any, random_rollouts: Any) -> None:
    """The last rollout is written only after the first answer was taken: without overlap this would never end."""
    queue, rollouts = MemoryQueue(), random_rollouts(5)
    pipeline = make_pipeline(queue)

    async def writing() -> AsyncIterator[list[Rollout]]:
        yield rollouts[:-1]
        await until(lambda: pipeline.open and pipeline.open[0].done)
        yield rollouts[-1:]

    async with working(queue), pipeline:
        scored, timeline = await pipeline.scored(writing())
    assert len(scored) == 5
    assert timeline.first_question_s <= timeline.first_answer_s <= timeline.last_rollout_s <= timeline.last_answer_s
    assert timeline.overlap_s >= 0
    assert timeline.wait_s >= 0


@pytest.mark.parametrize(
    ("support", "told", "asked"),
    [
        ({"kind": "full"}, {"toy": "bfloat16"}, "bfloat16"),
        ({"kind": "full"}, {"toy": "float32"}, "float32"),
        ({"kind": "teacher_top_k", "k": 3}, {"toy": "bfloat16"}, "float32"),
        ({"kind": "sampled"}, {"toy": "bfloat16"}, "float32"),
    ],
)
async def test_hidden_states_are_asked_for_as_the_teacher_computes_them_and_log_probs_in_full(
    support: dict[str, Any], told: Any, asked: str, make_spec: Any, random_rollouts: Any
) -> None:
    spec = make_spec({"kind": "divergence", "divergence": "forward_kl", "support": support})
    question = await Asker(MemoryQueue(), "run-1", spec, hidden_dtypes=told).question(random_rollouts(1)[0])
    assert decode_request(question.job.payload).entry_dtype == asked


class ShoutingQueue(MemoryQueue):
    """It announces every answer three times."""

    async def answers(self, reply_to: str, *, after: str, wait_s: float) -> Any:
        answers, cursor = await super().answers(reply_to, after=after, wait_s=wait_s)
        return answers * 3, cursor


async def test_an_answer_announced_again_takes_effect_once(make_pipeline: Any, random_rollouts: Any) -> None:
    queue, rollouts = ShoutingQueue(), random_rollouts(6)
    pipeline = make_pipeline(queue)
    async with working(queue), pipeline, asyncio.timeout(DEADLINE_S):
        scored, _ = await pipeline.scored(stream(rollouts))
        again, _ = await pipeline.scored(stream(rollouts))  # the same jobs: answered from memory
    assert [s.rollout.id for s in scored] == [s.rollout.id for s in again] == [r.id for r in rollouts]


class ForgetfulQueue:
    """A queue that is another one, empty, after `wipe`."""

    def __init__(self) -> None:
        self.inner = MemoryQueue()
        self.put_first = asyncio.Event()

    def wipe(self) -> None:
        self.inner = MemoryQueue()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def put(self, jobs: Sequence[Job]) -> list[Put]:
        results = await self.inner.put(jobs)
        self.put_first.set()
        return results


async def test_a_queue_that_lost_its_memory_is_filled_again(make_pipeline: Any, random_rollouts: Any) -> None:
    queue: Any = ForgetfulQueue()
    rollouts = random_rollouts(4)
    pipeline = make_pipeline(queue, away_s=0.1)
    asking = asyncio.create_task(one_step(pipeline, rollouts))
    await until(lambda: pipeline.open and len(pipeline.open[0].outstanding) == 4)
    await queue.put_first.wait()
    queue.wipe()
    async with working(queue):
        scored, _ = await asking
    assert [s.rollout.id for s in scored] == [r.id for r in rollouts]
    assert all(s.scores is not None for s in scored)


async def test_what_finds_no_room_in_the_queue_holds_up_the_writing_until_it_does(
    make_pipeline: Any, random_rollouts: Any
) -> None:
    rollouts = random_rollouts(30)
    tokens = [len(r.prompt_ids) + len(r.completion_ids) for r in rollouts]
    queue = MemoryQueue(QueueLimits(max_tokens=3 * max(tokens)))
    pipeline, written, most = make_pipeline(queue), 0, 0

    async def writing() -> AsyncIterator[list[Rollout]]:
        nonlocal written, most
        for start in range(0, 30, 5):
            written += 5
            yield rollouts[start : start + 5]
            most = max(most, (await queue.depth("toy")).tokens)

    async with asyncio.timeout(DEADLINE_S), pipeline:
        asking = asyncio.create_task(pipeline.scored(writing()))
        await until(lambda: pipeline.open and pipeline.open[0].outside)
        assert written < 30, "nothing is written that could not be asked about"
        async with working(queue):
            scored, _ = await asking
    assert [s.rollout.id for s in scored if s.scores is not None] == [r.id for r in rollouts]
    assert 0 < most <= 3 * max(tokens)


async def refuse_the_long(engine: FakeEngine, request: Any) -> bytes | None:
    return None if request.groups()[0].scored_tokens > 2 else await honest(engine, request)


async def test_a_question_that_was_given_up_costs_its_rollout_alone(
    make_pipeline: Any, make_rollout: Any, worker: Any
) -> None:
    queue = MemoryQueue()
    pipeline = make_pipeline(queue)
    rollouts = [make_rollout(0, [2], [3, 4]), make_rollout(1, [2], [3, 4, 5])]
    async with answering(queue, refuse_the_long):
        scored, _ = await one_step(pipeline, rollouts)
    assert [s.scores is None for s in scored] == [False, True]
    assert pipeline.answers.ledger.dropped_rollouts == 1
    assert worker.events == ["rollout r001 is left out: it was too hard"]


async def test_with_on_loss_fail_it_ends_the_run(make_pipeline: Any, make_rollout: Any) -> None:
    queue = MemoryQueue()
    async with answering(queue, refuse_the_long):
        with pytest.raises(TeacherFailed, match="too hard") as failed:
            await one_step(make_pipeline(queue, on_loss="fail"), [make_rollout(0, [2], [3, 4, 5])])
    assert failed.value.code == "question_failed"


async def test_a_step_without_any_score_ends_the_run(make_pipeline: Any, make_rollout: Any) -> None:
    queue = MemoryQueue()
    async with answering(queue, refuse_the_long):
        with pytest.raises(TeacherFailed, match=r"every question of this step, .* it was too hard") as failed:
            await one_step(make_pipeline(queue), [make_rollout(i, [2], [3, 4, 5]) for i in range(2)])
    assert failed.value.code == "no_scores"


class TellingQueue(MemoryQueue):
    """A dead letter is announced, and heard, before whoever adds the job again is told that it is dead."""

    heard: Any = None

    async def put(self, jobs: Sequence[Job]) -> list[Put]:
        results = await super().put(jobs)
        for job in [job for job, result in zip(jobs, results, strict=True) if result == Put.DEAD]:
            self._replies.setdefault(job.reply_to, []).append(job.id)
            await self._tell()
            while not self.heard():
                await asyncio.sleep(0.001)
        return results


async def test_hearing_twice_of_a_dead_letter_drops_its_rollout_once(make_pipeline: Any, make_rollout: Any) -> None:
    queue = TellingQueue()
    good, bad = make_rollout(0, [2], [3, 4]), make_rollout(1, [2], [3, 4, 5])
    async with answering(queue, refuse_the_long):
        await one_step(make_pipeline(queue), [good, bad])
        resumed = make_pipeline(queue)
        queue.heard = lambda: resumed.open[0].left_out
        scored, _ = await one_step(resumed, [good, bad])
    assert [s.scores is None for s in scored] == [False, True]
    assert resumed.answers.ledger.dropped_rollouts == 1


def spoiled(kind: str) -> Any:
    """Bytes of a reply whose numbers went past the teacher's own checks."""

    async def reply(_engine: FakeEngine, request: Any) -> bytes:
        return await honest(FakeEngine(FakeOptions(faults=(kind,)), "toy"), request)  # type: ignore[arg-type]

    return reply


@pytest.mark.parametrize("kind", ["nan", "positive", "short"])
async def test_a_reply_that_is_no_score_is_refused_three_times_and_then_ends_the_run(
    kind: str, make_pipeline: Any, make_rollout: Any, worker: Any
) -> None:
    queue = MemoryQueue()
    pipeline = make_pipeline(queue)
    async with answering(queue, spoiled(kind)) as taken:
        with pytest.raises(TeacherFailed) as failed:
            await one_step(pipeline, [make_rollout(0, [2], [3, 4, 5])])
    assert failed.value.code == "bad_scores"
    assert len(taken) == len({d.job.id for d in taken}) == 3
    assert len(worker.events) == 3
    assert pipeline.open == []


async def test_a_reply_that_is_bad_once_is_asked_for_again(make_pipeline: Any, make_rollout: Any) -> None:
    queue, calls = MemoryQueue(), []

    async def bad_once(engine: FakeEngine, request: Any) -> bytes:
        calls.append(request)
        return b"nonsense" if len(calls) == 1 else await honest(engine, request)

    async with answering(queue, bad_once):
        scored, _ = await one_step(make_pipeline(queue), [make_rollout(0, [2], [3, 4, 5])])
    assert scored[0].scores is not None
    assert len(calls) == 2


@pytest.mark.parametrize("faults", [("none", "nan"), ("none", "positive")])
async def test_the_teacher_itself_stops_bad_numbers(
    faults: tuple[Any, ...], make_pipeline: Any, make_rollout: Any
) -> None:
    """The worker refuses what its engine said and has it done again; the trainer never sees it."""
    queue = MemoryQueue()
    async with working(queue, FakeEngine(FakeOptions(faults=faults), "toy")):
        scored, _ = await one_step(make_pipeline(queue), [make_rollout(0, [2], [3, 4, 5])])
    assert np.isfinite(scored[0].scores.sampled_logprob).all()


@pytest.mark.parametrize("changed", ["model_revision", "tokenizer_fingerprint", "dtype"])
async def test_another_teacher_under_the_same_name_is_refused_at_once(
    changed: str, make_pipeline: Any, make_rollout: Any
) -> None:
    queue = MemoryQueue()

    async def reply(engine: FakeEngine, request: Any) -> bytes:
        return await honest(engine, request, **{changed: "other"})

    async with answering(queue, reply) as taken:
        with pytest.raises(TeacherFailed, match=f"teacher's {changed} changed") as failed:
            await one_step(make_pipeline(queue), [make_rollout(0, [2], [3, 4, 5])])
    assert failed.value.code == "teacher_changed"
    assert len(taken) == 1


async def test_a_run_that_is_cancelled_stops_waiting(
    make_pipeline: Any, make_rollout: Any, session: Any, worker: Any
) -> None:
    queue = MemoryQueue()  # on which nobody works
    asked = one_step(make_pipeline(queue), [make_rollout(0, [2], [3, 4, 5])])
    asking = asyncio.create_task(session.while_wanted(asked))
    while (await queue.depth("toy")).waiting == 0:
        await asyncio.sleep(0.001)
    worker.desired = "cancel"
    await session.enter("running")
    with pytest.raises(StopRun, match="cancel"):
        await asking


async def test_an_answer_to_an_abandoned_step_has_no_effect(make_pipeline: Any, make_rollout: Any, worker: Any) -> None:
    """Its jobs are answered, well and badly, while the next step waits for its own."""
    queue = MemoryQueue()
    pipeline = make_pipeline(queue)
    good, bad, hard = (make_rollout(i, [2], [3 + i] * n) for i, n in enumerate((2, 3, 4)))
    own = make_rollout(9, [2], [3] * 6)

    async def reply(engine: FakeEngine, request: Any) -> bytes | None:
        spoiled = {3: b"nonsense", 4: None}
        return spoiled.get(request.groups()[0].scored_tokens, await honest(engine, request))

    async with pipeline, asyncio.timeout(DEADLINE_S):
        first = asyncio.create_task(pipeline.scored(stream([good, bad, hard])))
        await until(lambda: pipeline.open and len(pipeline.open[0].outstanding) == 3)
        [abandoned] = pipeline.open
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        async with answering(queue, reply) as taken:
            scored, _ = await pipeline.scored(stream([own]))
    assert [s.rollout.id for s in scored] == ["r009"]
    assert len(taken) == 4
    assert abandoned.done == []
    assert worker.events == []
    ledger = pipeline.answers.ledger
    assert (ledger.teacher_tokens, ledger.dropped_rollouts) == (6, 0)


async def test_what_is_announced_between_two_steps_is_not_lost(make_pipeline: Any, random_rollouts: Any) -> None:
    """The second step's questions were answered for an abandoned attempt at it, before they are asked."""
    queue, rollouts = MemoryQueue(), random_rollouts(4)
    pipeline = make_pipeline(queue)
    async with working(queue), pipeline, asyncio.timeout(DEADLINE_S):
        first, _ = await pipeline.scored(stream(rollouts[:2]))
        for rollout in rollouts[2:]:
            await put_one(queue, (await pipeline.answers.asker.question(rollout)).job)
        while (await queue.depth("toy")).waiting + (await queue.depth("toy")).leased:
            await asyncio.sleep(0.001)
        second, _ = await pipeline.scored(stream(rollouts[2:]))
    assert [s.rollout.id for s in first + second] == [r.id for r in rollouts]
    assert all(s.scores is not None for s in first + second)


class BrokenQueue(MemoryQueue):
    """It takes questions and cannot be read."""

    async def answers(self, reply_to: str, *, after: str, wait_s: float) -> Any:
        raise RuntimeError("the reader broke")


async def test_an_error_of_the_reader_ends_a_step_that_is_still_sampling(make_pipeline: Any, make_rollout: Any) -> None:
    closed = asyncio.Event()

    async def endless() -> AsyncIterator[list[Rollout]]:
        try:
            yield [make_rollout(0, [2], [3])]
            await asyncio.Event().wait()
        finally:
            closed.set()

    async with make_pipeline(BrokenQueue()) as pipeline, asyncio.timeout(DEADLINE_S):
        with pytest.raises(RuntimeError, match="the reader broke"):
            await pipeline.scored(endless())
        await closed.wait()
        with pytest.raises(RuntimeError, match="the reader broke"):
            await pipeline.scored(stream([make_rollout(1, [2], [3])]))


async def test_a_teacher_that_is_not_heard_of_counts_as_away_until_it_answers(
    make_pipeline: Any, make_rollout: Any, session: Any
) -> None:
    queue = MemoryQueue()
    pipeline = make_pipeline(queue, away_s=0.05)
    async with pipeline, asyncio.timeout(DEADLINE_S):
        asking = asyncio.create_task(pipeline.scored(stream([make_rollout(0, [2], [3])])))
        await until(lambda: not session.conditions["teacher_available"])
        async with working(queue):
            await asking
        await until(lambda: session.conditions["teacher_available"])


async def test_a_step_of_no_rollouts_has_no_scores(make_pipeline: Any) -> None:
    scored, timeline = await one_step(make_pipeline(MemoryQueue()), [])
    assert (scored, timeline.overlap_s, timeline.wait_s) == ([], None, None)
