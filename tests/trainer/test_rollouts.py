"""Which prompts a step uses, who writes, and how the text arrives."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from recording_worker import RecordingWorker, lease
from toy_teacher import registered

from tutelage.engines import FakeOptions
from tutelage.engines.fake import FakeEngine
from tutelage.trainer.data import Example
from tutelage.trainer.exits import TeacherFailed
from tutelage.trainer.inbox import Inbox
from tutelage.trainer.ledger import Ledger
from tutelage.trainer.rollouts import SOURCES
from tutelage.trainer.session import Session
from tutelage.trainer.sourcing import Sources, prompts_of_step, seed_for
from tutelage.trainer.teachers import Teacher, Teachers
from tutelage_client.errors import ProblemResponse
from tutelage_client.spec import TeacherRef
from tutelage_client.wire import GenerateReply, GenerateRequest, Generation, Page, Prompt, Rollout, RolloutLimits

PENALTY = {"kind": "constant_penalty"}


@given(seed=st.integers(0, 2**31 - 1), count=st.integers(1, 12), size=st.integers(1, 30))
def test_every_prompt_comes_once_in_each_pass(seed: int, count: int, size: int) -> None:
    steps = [prompts_of_step(seed, step, count, size) for step in range(3 * size)]
    assert steps == [prompts_of_step(seed, step, count, size) for step in range(3 * size)]
    stream = [i for step in steps for i in step]
    passes = [stream[at : at + size] for at in range(0, len(stream) - size + 1, size)]
    assert all(sorted(one) == list(range(size)) for one in passes)


def test_passes_and_seeds_are_shuffled_differently() -> None:
    orders = {tuple(prompts_of_step(seed, step, 20, 20)) for seed in range(3) for step in range(3)}
    assert len(orders) == 9


class PushedPages(RecordingWorker):
    """A worker client that hands out pushed rollouts two at a time."""

    def __init__(self, rollouts: list[Rollout]) -> None:
        super().__init__()
        self.rollouts = rollouts
        self.asked: list[int] = []

    async def pushed(self, run_id: str, *, after: int, limit: int) -> Page[Rollout]:
        self.asked.append(after)
        end = min(after + min(2, limit), len(self.rollouts))
        return Page[Rollout](data=self.rollouts[after:end], next=str(end) if end > after else None)


@pytest.fixture
def sources(make_spec: Any, make_student: Any) -> Sources:
    spec = make_spec(PENALTY, rollout={"prompts_per_step": 4, "samples_per_prompt": 2, "max_new_tokens": 6})
    examples = [Example(f"p{i}", [2 + i, 10], [3 + i, 1], f"a{i}", None, i + 1) for i in range(8)]
    return Sources(5, spec.rollout, examples, make_student(spec), Teachers(), Ledger())


async def collected(sources: Sources, source: str, step: int) -> list[Rollout]:
    return [rollout async for ended in SOURCES[source](sources, step) for rollout in ended]


async def test_behaviour_logprobs_are_those_of_a_fresh_forward(sources: Sources) -> None:
    rollouts = await collected(sources, "student", 0)
    assert len({r.id for r in rollouts}) == len(rollouts) == 8
    for rollout in rollouts:
        ids = torch.from_numpy(np.concatenate([rollout.prompt_ids, rollout.completion_ids])).long()
        with torch.no_grad():
            logp = sources.student.model(input_ids=ids[None]).logits[0].log_softmax(-1)
        start = len(rollout.prompt_ids)
        fresh = [float(logp[t - 1, ids[t]]) for t in range(start, len(ids))]
        assert rollout.behaviour_logprob is not None
        np.testing.assert_allclose(rollout.behaviour_logprob, fresh, atol=1e-4)


async def test_a_step_that_is_done_again_writes_the_same(sources: Sources) -> None:
    one, again, next_step = [
        {r.id: (r.prompt_ids.tolist(), r.completion_ids.tolist()) for r in await collected(sources, "student", step)}
        for step in (3, 3, 4)
    ]
    assert one == again
    assert not one.keys() & next_step.keys()


@pytest.mark.parametrize("fraction", [0.0, 0.3, 1.0])
async def test_a_mix_takes_its_fraction_of_prompts_from_the_student(sources: Sources, fraction: float) -> None:
    spec = sources.spec.model_copy(update={"source": "mix", "on_policy_fraction": fraction, "samples_per_prompt": 1})
    mixed = replace(sources, spec=spec.model_copy(update={"prompts_per_step": 200, "max_new_tokens": 1}))
    rollouts = await collected(mixed, "mix", 0)
    assert len({r.id for r in rollouts}) == len(rollouts) == 200
    from_student = sum(r.source == "student" for r in rollouts)
    assert abs(from_student / 200 - fraction) < (0.12 if 0 < fraction < 1 else 1e-9)
    assert all((r.behaviour_logprob is not None) == (r.source == "student") for r in rollouts)


async def test_a_pair_is_the_completion_of_each_prompt_beside_the_students_own(sources: Sources) -> None:
    rollouts = await collected(sources, "paired", 0)
    prompts = [r.prompt_ids.tolist() for r in rollouts if r.source == "data"]
    assert len({r.id for r in rollouts}) == len(rollouts) == 12
    for prompt in prompts:
        written = [r.source for r in rollouts if r.prompt_ids.tolist() == prompt]
        assert sorted(written) == ["data", "student", "student"]


async def test_data_is_taken_as_it_stands(sources: Sources) -> None:
    rollouts = await collected(sources, "data", 0)
    indices = prompts_of_step(5, 0, 4, 8)
    assert [r.completion_ids.tolist() for r in rollouts] == [[3 + i, 1] for i in indices]
    assert [r.answer for r in rollouts] == [f"a{i}" for i in indices]


def inbox(pages: PushedPages, **limits: int) -> Inbox:
    session = Session(cast("Any", pages), lease({}, "/artefacts"))
    return Inbox(session, RolloutLimits.model_validate({"vocabulary_size": 32, "context": 64} | limits))


async def test_pushed_rollouts_come_in_order_and_move_the_cursor(sources: Sources, random_rollouts: Any) -> None:
    pages = PushedPages(random_rollouts(20))
    pushed = replace(sources, inbox=inbox(pages))
    first, second = await collected(pushed, "pushed", 0), await collected(pushed, "pushed", 1)
    assert [r.id for r in first + second] == [f"r{i:03}" for i in range(16)]
    assert pushed.inbox is not None
    assert pushed.inbox.after == 16
    assert pushed.ledger.pushed_after == 0  # nothing was learned from yet
    assert pages.asked == list(range(0, 16, 2))


async def test_a_pushed_rollout_that_cannot_be_read_is_left_out_and_told_of(
    sources: Sources, random_rollouts: Any
) -> None:
    """Such as were pushed before the coordinator knew what the run's student and teachers read."""
    rollouts = random_rollouts(10)
    wrong = np.full_like(rollouts[3].completion_ids, 32)
    rollouts[3] = rollouts[3].model_copy(update={"completion_ids": wrong})
    pages = PushedPages(rollouts)
    taken = await collected(replace(sources, inbox=inbox(pages)), "pushed", 0)
    assert [r.id for r in taken] == [f"r{i:03}" for i in range(9) if i != 3]
    assert pages.events == [
        "the pushed rollout 'r003' is left out: completion_ids: 32 is no token id, those of this run are 0 to 31; "
        "encode the text with the student's tokenizer"
    ]


async def test_a_reader_that_leaves_early_stops_the_sampling_thread(sources: Sources) -> None:
    threads = threading.active_count()
    many = replace(sources, spec=sources.spec.model_copy(update={"prompts_per_step": 256, "samples_per_prompt": 8}))
    inner, drawn = many.student.sample, []

    def counted(*arguments: Any) -> Any:
        for sampled in inner(*arguments):
            drawn.append(sampled)
            yield sampled

    many.student.sample = counted  # type: ignore[method-assign]
    rollouts: Any = SOURCES["student"](many, 0)
    await anext(rollouts)
    await rollouts.aclose()
    assert len(drawn) < 2048
    seen = len(drawn)
    assert threading.active_count() <= threads + 1  # the executor keeps its idle thread
    assert len(drawn) == seen


async def test_an_error_of_the_sampler_reaches_the_reader(sources: Sources) -> None:
    def broken(*arguments: Any) -> Any:
        raise RuntimeError("the sampler broke")
        yield

    sources.student.sample = broken  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="the sampler broke"):
        await collected(sources, "student", 0)


class Writer:
    """A teacher client over a toy engine; `changes`: of its provenance, in replies alone."""

    def __init__(self, name: str = "toy", seed: int = 0, **changes: str) -> None:
        self.engine = FakeEngine(FakeOptions(seed=seed), name)
        self.changes = changes

    async def generate(self, request: GenerateRequest) -> GenerateReply:
        generations, usage = await self.engine.generate(request)
        provenance = self.engine.provenance.model_copy(update=self.changes)
        return GenerateReply(generations=self.written(generations), provenance=provenance, usage=usage)

    def written(self, generations: list[list[Generation]]) -> list[list[Generation]]:
        return generations


class Silent(Writer):
    """It writes nothing to any prompt."""

    def written(self, generations: list[list[Generation]]) -> list[list[Generation]]:
        nothing = Generation(text="", token_ids=[], finish_reason="stop")
        return [[nothing for _ in texts] for texts in generations]


class Miscounting(Writer):
    """It leaves out the last text of the last prompt."""

    def written(self, generations: list[list[Generation]]) -> list[list[Generation]]:
        return [*generations[:-1], generations[-1][:-1]]


def asking(writer: Writer, tags: Sequence[str] = ()) -> Teacher:
    """One teacher of token ids behind this client."""
    client: Any = writer
    view = registered(writer.engine)
    return Teacher(TeacherRef(name=view.name, tags=list(tags)), view, client)


async def test_a_teacher_that_writes_nothing_is_no_source(sources: Sources) -> None:
    with pytest.raises(TeacherFailed, match="wrote no tokens"):
        await collected(replace(sources, teachers=Teachers((asking(Silent()),))), "teacher", 0)


async def test_a_teacher_that_changes_while_it_writes_is_found_out_and_paid(sources: Sources) -> None:
    changed = replace(sources, teachers=Teachers((asking(Writer(model_revision="other")),)))
    with pytest.raises(TeacherFailed, match=r"'toy' is not the one it was.*model_revision") as failure:
        await collected(changed, "teacher", 0)
    assert failure.value.code == "teacher_changed"
    assert changed.ledger.teacher_tokens > 0


async def test_a_text_that_is_missing_is_the_teachers_failure(sources: Sources) -> None:
    with pytest.raises(TeacherFailed, match="2 texts to each of 4 prompts") as failure:
        await collected(replace(sources, teachers=Teachers((asking(Miscounting()),))), "teacher", 0)
    assert failure.value.code == "bad_text"


def tagged(sources: Sources) -> list[Example]:
    return [replace(example, tag="lr"[i % 2]) for i, example in enumerate(sources.examples)]


async def test_each_of_two_teachers_writes_to_the_prompts_of_its_tag(sources: Sources) -> None:
    left, right = Writer("left", seed=1), Writer("right", seed=2)
    teachers = Teachers((asking(left, ["l"]), asking(right)))
    routed = replace(sources, teachers=teachers, examples=tagged(sources))
    rollouts = await collected(routed, "teacher", 0)
    chosen = [example for _, example in routed.chosen(0)]
    assert len({r.id for r in rollouts}) == len(rollouts) == 8
    assert {r.id for r in rollouts} == {routed.rollout_id(0, row, k) for row in range(4) for k in range(2)}
    for writer, tag in ((left, "l"), (right, "r")):
        prompts: list[Prompt] = [example.prompt_ids for example in chosen if example.tag == tag]
        asked = GenerateRequest(
            prompts=prompts, n=2, max_tokens=6, temperature=1.0, seed=seed_for(routed.seed, 0, "teacher")
        )
        generations, usage = await writer.engine.generate(asked)
        expected = [one.token_ids for texts in generations for one in texts]
        assert [r.completion_ids.tolist() for r in rollouts if r.tag == tag] == expected
        paid = routed.ledger.tokens_of[writer.engine.provenance.teacher]
        assert paid == usage.forward_tokens + usage.generated_tokens


async def test_a_teacher_that_writes_nothing_leaves_the_text_of_the_other(sources: Sources) -> None:
    teachers = Teachers((asking(Silent("left"), ["l"]), asking(Writer("right"))))
    routed = replace(sources, teachers=teachers, examples=tagged(sources))
    rollouts = await collected(routed, "teacher", 0)
    assert {r.tag for r in rollouts} == {"r"}
    assert len(rollouts) + routed.ledger.dropped_rollouts == 8


class Guarded(Writer):
    """A teacher client whose teacher wants a key."""

    async def generate(self, request: GenerateRequest) -> GenerateReply:
        raise ProblemResponse(401, "unauthorized", f"no key, {len(request.prompts)} prompts")


async def test_a_refusal_is_the_teachers_failure_and_names_the_remedy(sources: Sources) -> None:
    with pytest.raises(TeacherFailed, match=r"no key.*--teacher-key-file") as failure:
        await collected(replace(sources, teachers=Teachers((asking(Guarded()),))), "teacher", 0)
    assert failure.value.code == "teacher_refused"
