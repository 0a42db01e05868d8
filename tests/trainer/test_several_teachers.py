"""A run with several teachers: each line to the one that takes its tag, and what one of them does is its own affair."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from recording_worker import RecordingWorker, lease
from toy_teacher import answering, honest, registered, working

from tutelage.engines import FakeOptions
from tutelage.engines.fake import FakeEngine
from tutelage.engines.tokenizer import tokenizer_fingerprint
from tutelage.queue import MemoryQueue
from tutelage.trainer.answers import Answers
from tutelage.trainer.asking import Asker
from tutelage.trainer.build import build, output_head
from tutelage.trainer.exits import StopRun, TeacherFailed
from tutelage.trainer.ledger import Ledger
from tutelage.trainer.loop import train
from tutelage.trainer.marking import Scored
from tutelage.trainer.pipeline import Pipeline
from tutelage.trainer.run import Run
from tutelage.trainer.session import Session
from tutelage_client.errors import InvalidInput
from tutelage_client.spec import RunSpec
from tutelage_client.wire import CheckpointView, Rollout, ScoreRequest, TeacherView, TokenScores

SAMPLED = {"kind": "divergence", "divergence": "reverse_kl", "support": {"kind": "sampled"}}
FULL = {"kind": "divergence", "divergence": "forward_kl"}
ROUTES = [{"name": "left", "tags": ["l", "both"]}, {"name": "right"}]
DEADLINE_S = 30.0

Build = Callable[..., Awaitable[Run]]


@pytest.fixture
def engines(tokenizer: Any) -> dict[str, FakeEngine]:
    """Two toy teachers of the student's family that never agree."""
    made = {name: FakeEngine(FakeOptions(seed=seed), name) for seed, name in enumerate(("left", "right"))}
    own = {"tokenizer_fingerprint": tokenizer_fingerprint(tokenizer)}
    for engine in made.values():
        engine.provenance = engine.provenance.model_copy(update=own)
    return made


@pytest.fixture
def spec_of(make_spec: Any, tmp_path: Path) -> Callable[..., RunSpec]:
    """Three steps on six lines, of which three are `left`'s."""
    data = tmp_path / "prompts.jsonl"

    def make(tags: Sequence[str | None] = ("l", "r", "both", None, "l", "r"), **sections: Any) -> RunSpec:
        lines = [{"prompt": f"{a} {b}", "tag": tag} for a, b, tag in zip("abcdef", "ghijkl", tags, strict=True)]
        data.write_text("\n".join(map(json.dumps, lines)))
        wanted = {
            "teachers": ROUTES,
            "data": {"train": str(data)},
            "rollout": {"prompts_per_step": 6, "samples_per_prompt": 2},
            "optim": {"steps": 3},
            "checkpoint": {"every": 1},
        }
        return make_spec(SAMPLED, **(wanted | sections))

    return make


class Registry:
    """The coordinator's registry alone: what is in it, and what is asked of it while nothing is."""

    def __init__(self, *views: TeacherView) -> None:
        self.views = list(views)
        self.asked = asyncio.Event()

    async def teachers(self) -> list[TeacherView]:
        self.asked.set()
        return self.views


@pytest.fixture
def begin(engines: dict[str, FakeEngine], tmp_path: Path, worker: RecordingWorker) -> Build:
    async def start(
        spec: RunSpec,
        queue: MemoryQueue,
        checkpoint: CheckpointView | None = None,
        leased: Sequence[str] = ("left", "right"),
        registry: Registry | None = None,
    ) -> Run:
        views = {name: registered(engines[name]).model_dump(mode="json") for name in leased}
        held = lease({}, str(tmp_path / "run"), checkpoint=checkpoint, teachers=views)
        return await build(Session(cast("Any", worker), held), spec, cast("Any", registry), queue)

    return start


async def finish(run: Run) -> None:
    async with asyncio.timeout(DEADLINE_S), run.pipeline or nullcontext():
        await train(run)


async def test_every_line_is_marked_by_the_teacher_of_its_tag(
    spec_of: Any, begin: Build, engines: dict[str, FakeEngine], worker: RecordingWorker
) -> None:
    queue = MemoryQueue()
    run = await begin(spec_of(), queue)
    asked: dict[str, list[Rollout]] = {"left": [], "right": []}
    seen, learn = [], run.student.learn
    run.student.learn = lambda batches, *rest: learn(list(seen_in(batches, seen)), *rest)  # type: ignore[method-assign]
    async with working(queue, engines["left"]), working(queue, engines["right"]):
        await finish(run)
    assert [row.step for row in worker.steps] == [0, 1, 2, 3]
    for batch in seen:
        engine, first = engines[batch.marked_by], batch.input_ids_BT.flatten()[batch.predictor_R]
        expected = engine.logprob_VV[first, batch.token_ids_R].astype(np.float32)
        np.testing.assert_array_equal(batch.teacher.sampled_logprob_R, expected)
    rows: list[dict[str, Any]] = [dict(row.metrics) for row in worker.steps[1:]]
    for row in rows:
        assert row["learned_tokens/left"] + row["learned_tokens/right"] == row["learned_tokens"]
        weighted = [row[f"learned_tokens/{name}"] * row[f"reverse_kl/{name}"] for name in asked]
        assert sum(weighted) == pytest.approx(row["learned_tokens"] * row["reverse_kl"])
    assert sum(rows[-1][f"teacher_tokens/{name}"] for name in asked) == worker.steps[-1].teacher_tokens > 0


def seen_in(batches: Any, seen: list[Any]) -> Any:
    for batch in batches:
        seen.append(batch)
        yield batch


async def test_one_teacher_has_no_rows_of_its_own(
    spec_of: Any, begin: Build, engines: dict[str, FakeEngine], worker: RecordingWorker
) -> None:
    queue = MemoryQueue()
    run = await begin(spec_of(teachers=[{"name": "left"}]), queue)
    async with working(queue, engines["left"]):
        await finish(run)
    assert not [name for row in worker.steps for name in row.metrics if name.endswith("/left")]


async def test_the_budget_counts_the_tokens_of_all_teachers(
    spec_of: Any, begin: Build, engines: dict[str, FakeEngine], worker: RecordingWorker
) -> None:
    queue = MemoryQueue()
    run = await begin(spec_of(), queue)
    async with working(queue, engines["left"]), working(queue, engines["right"]):
        await finish(run)
    of_one = worker.steps[1].metrics["teacher_tokens/left"]
    limited = RecordingWorker()
    again = await begin(spec_of(budget={"teacher_tokens": int(cast(float, of_one)) + 1}), queue)
    again.session = Session(cast("Any", limited), again.session.lease)
    async with working(queue, engines["left"]), working(queue, engines["right"]):
        await finish(again)
    assert [row.step for row in limited.steps] == [0, 1]  # left alone would have had a second one


UNROUTED: dict[str, tuple[list[dict[str, Any]], Sequence[str | None], str, tuple[str, ...]]] = {
    "a tag that nobody takes": (
        [{"name": "left", "tags": ["l"]}, {"name": "right", "tags": ["r"]}],
        ("l", "r", "l", "x", "l", "r"),
        "data.train",
        ("line 4", "'x'", "'l', 'r'"),
    ),
    "no tag where every teacher has some": (
        [{"name": "left", "tags": ["l"]}, {"name": "right", "tags": ["r"]}],
        ("l", None, "l", "r", "l", "r"),
        "data.train",
        ("line 2", "no tag", "'l', 'r'"),
    ),
    "a tag that no line has": (
        [{"name": "left", "tags": ["l", "lfet"]}, {"name": "right"}],
        ("l", "r", "l", "r", "l", "r"),
        "teachers.0.tags",
        ("'lfet'", "'l', 'r'"),
    ),
}


@pytest.mark.parametrize("case", UNROUTED)
async def test_a_line_without_a_teacher_is_refused_when_the_data_are_read(
    case: str, spec_of: Any, begin: Build
) -> None:
    teachers, tags, field, words = UNROUTED[case]
    with pytest.raises(InvalidInput) as refused:
        await begin(spec_of(tags, teachers=teachers), MemoryQueue())
    assert refused.value.field == field
    assert refused.value.message.startswith(f"{field}: ")
    for word in words:
        assert word in refused.value.message


async def test_the_teacher_with_another_tokenizer_is_named(
    spec_of: Any, begin: Build, engines: dict[str, FakeEngine]
) -> None:
    right = engines["right"]
    right.provenance = right.provenance.model_copy(update={"tokenizer_fingerprint": "f" * 64})
    with pytest.raises(InvalidInput, match="not that of teacher 'right'"):
        await begin(spec_of(), MemoryQueue())


async def test_a_resumed_run_finds_the_same_teachers_or_names_the_changed_one(
    spec_of: Any, begin: Build, engines: dict[str, FakeEngine], worker: RecordingWorker
) -> None:
    queue = MemoryQueue()
    async with working(queue, engines["left"]), working(queue, engines["right"]):
        await finish(await begin(spec_of(optim={"steps": 1}), queue))
        resumed = await begin(spec_of(), queue, checkpoint=worker.newest)
        assert resumed.ledger.tokens_of == {
            name: worker.steps[-1].metrics[f"teacher_tokens/{name}"] for name in ("left", "right")
        }
        await finish(resumed)
    assert [row.step for row in worker.steps] == [0, 1, 2, 3]
    right = engines["right"]
    right.provenance = right.provenance.model_copy(update={"model_revision": "another"})
    with pytest.raises(TeacherFailed, match="teacher 'right' is not the one") as changed:
        await begin(spec_of(), queue, checkpoint=worker.newest)
    assert changed.value.code == "teacher_changed"


async def test_a_teacher_that_is_not_registered_any_more_is_waited_for(
    spec_of: Any, begin: Build, engines: dict[str, FakeEngine], worker: RecordingWorker
) -> None:
    queue, registry = MemoryQueue(), Registry()
    starting = asyncio.ensure_future(begin(spec_of(), queue, leased=["left"], registry=registry))
    async with asyncio.timeout(DEADLINE_S):
        await registry.asked.wait()
        assert not starting.done()
        assert "teacher 'right' is not registered" in worker.events[-1]
        registry.views.append(registered(engines["right"]))
        run = await starting
    assert run.session.conditions["teacher_available"]
    assert [teacher.name for teacher in run.teachers.all] == ["left", "right"]


async def test_a_run_that_waits_for_a_teacher_can_be_paused(spec_of: Any, tmp_path: Path) -> None:
    worker, registry = RecordingWorker(), Registry()
    session = Session(cast("Any", worker), lease({}, str(tmp_path / "run"), teachers={}))
    starting = asyncio.ensure_future(build(session, spec_of(), cast("Any", registry), MemoryQueue()))
    async with asyncio.timeout(DEADLINE_S):
        await registry.asked.wait()
        session.request("pause")
        with pytest.raises(StopRun):
            await starting


async def test_with_on_loss_fail_it_ends_the_run(spec_of: Any, begin: Build) -> None:
    teachers = [{"name": "left", "tags": ["l"]}, {"name": "right", "on_loss": "fail"}]
    with pytest.raises(TeacherFailed, match="teacher 'right' is not registered") as failed:
        await begin(spec_of(teachers=teachers), MemoryQueue(), leased=["left"], registry=Registry())
    assert failed.value.code == "teacher_gone"


@pytest.fixture
def make_pipeline(make_spec: Any, session: Session, engines: dict[str, FakeEngine]) -> Callable[..., Pipeline]:
    def make(queue: MemoryQueue, away_s: float = 10.0, **on_loss: str) -> Pipeline:
        teachers = [{**ref, "on_loss": on_loss.get(str(ref["name"]), "pause")} for ref in ROUTES]
        asker = Asker(queue, "run-1", make_spec(SAMPLED, teachers=teachers))
        provenances = {name: engine.provenance for name, engine in engines.items()}
        return Pipeline(Answers(asker, session, provenances, Ledger()), away_s)

    return make


@pytest.fixture
def rollouts(make_rollout: Any) -> list[Rollout]:
    tags = ["l", "r", "both", None]
    return [make_rollout(i, [2 + i], [3, 4, 5], tag=tag) for i, tag in enumerate(tags)]


async def all_of(rollouts: Sequence[Rollout]) -> AsyncIterator[list[Rollout]]:
    yield list(rollouts)


async def test_one_teacher_that_is_away_holds_up_its_own_lines_alone(
    make_pipeline: Any, rollouts: list[Rollout], engines: dict[str, FakeEngine], session: Session
) -> None:
    queue = MemoryQueue()
    pipeline = make_pipeline(queue, away_s=0.05)
    async with asyncio.timeout(DEADLINE_S), working(queue, engines["left"]), pipeline:
        scoring = asyncio.ensure_future(pipeline.scored(all_of(rollouts)))
        while session.conditions["teacher_available"] or not pipeline.open or len(pipeline.open[0].outstanding) > 2:
            await asyncio.sleep(0.001)
        assert session.conditions["teacher_available/left"]
        assert not session.conditions["teacher_available/right"]
        assert {question.teacher.name for question in pipeline.open[0].outstanding} == {"right"}
        async with working(queue, engines["right"]):
            scored, _ = await scoring
    assert [s.teacher for s in scored] == ["left", "right", "left", "right"]
    assert all(s.scores is not None for s in scored)


async def refuse(_engine: FakeEngine, _request: ScoreRequest) -> None:
    return None


@pytest.mark.parametrize("on_loss", ["pause", "fail"])
async def test_what_a_loss_means_is_said_by_each_teacher(
    on_loss: str, make_pipeline: Any, rollouts: list[Rollout], engines: dict[str, FakeEngine]
) -> None:
    queue = MemoryQueue()
    pipeline = make_pipeline(queue, left="pause" if on_loss == "fail" else "fail", right=on_loss)
    working_left = working(queue, engines["left"])
    async with asyncio.timeout(DEADLINE_S), working_left, answering(queue, refuse, engines["right"]), pipeline:
        if on_loss == "fail":
            with pytest.raises(TeacherFailed, match="too hard"):
                await pipeline.scored(all_of(rollouts))
        else:
            scored, _ = await pipeline.scored(all_of(rollouts))
            assert [s.scores is None for s in scored] == [False, True, False, True]
            assert pipeline.answers.ledger.dropped_rollouts == 2


async def test_a_reply_of_the_other_teacher_is_a_changed_teacher(
    make_pipeline: Any, rollouts: list[Rollout], engines: dict[str, FakeEngine]
) -> None:
    queue = MemoryQueue()
    pipeline = make_pipeline(queue)

    async def as_left(engine: FakeEngine, request: ScoreRequest) -> bytes:
        return await honest(engine, request, teacher="left")

    both = (answering(queue, honest, engines["left"]), answering(queue, as_left, engines["right"]))
    async with asyncio.timeout(DEADLINE_S), both[0], both[1], pipeline:
        with pytest.raises(TeacherFailed, match="teacher 'right' is not the one it was") as changed:
            await pipeline.scored(all_of(rollouts))
    assert changed.value.code == "teacher_changed"


def test_teachers_of_other_sizes_give_the_sum_of_their_gradients(
    make_spec: Any, make_student: Any, gradient_of: Any, random_rollouts: Any
) -> None:
    """Over the full vocabulary each has an output head of its own, and the step's mean is over the lines of both."""
    student = make_student(make_spec(FULL))
    heads = {
        "left": FakeEngine(FakeOptions(hidden_size=8), "left"),
        "right": FakeEngine(FakeOptions(hidden_size=12), "right"),
    }
    student.teacher_heads = {name: output_head(engine.head(), student) for name, engine in heads.items()}
    first, second = random_rollouts(8)[:4], random_rollouts(8)[4:]
    own = {
        name: [Scored(rollout, hidden_of(engine, rollout), teacher=name) for rollout in rollouts]
        for (name, engine), rollouts in zip(heads.items(), (first, second), strict=True)
    }
    together = gradient_of(student, own["right"] + own["left"])
    counts = {name: sum(len(item.rollout.completion_ids) for item in scored) for name, scored in own.items()}
    alone = {name: gradient_of(student, scored) for name, scored in own.items()}
    for key, gradient in together.items():
        expected = sum(alone[name][key] * counts[name] for name in own) / sum(counts.values())
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)


def hidden_of(engine: FakeEngine, rollout: Rollout) -> TokenScores:
    """The toy teacher's hidden state before every token of the completion."""
    rows = len(rollout.completion_ids)
    before = np.concatenate([rollout.prompt_ids[-1:], rollout.completion_ids[:-1]])
    hidden = np.random.default_rng(1).normal(size=(32, engine._options.hidden_size)).astype(np.float32)[before]
    return TokenScores(start=len(rollout.prompt_ids), valid=np.ones(rows, dtype=bool), hidden=hidden)
