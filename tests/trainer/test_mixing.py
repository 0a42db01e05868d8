"""Text that student and teacher write by turns: each token is of the mixture, and mu is the mixture's."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from toy_teacher import registered

from tutelage.engines import FakeOptions
from tutelage.engines.fake import FakeEngine
from tutelage.trainer.data import Example
from tutelage.trainer.exits import TeacherFailed
from tutelage.trainer.ledger import Ledger
from tutelage.trainer.marking import Scored
from tutelage.trainer.mixing import weighed
from tutelage.trainer.rollouts import SOURCES
from tutelage.trainer.sourcing import Sources
from tutelage.trainer.teachers import Teacher, Teachers
from tutelage_client.spec import TeacherRef
from tutelage_client.wire import GenerateReply, GenerateRequest, Generation, Rollout, TokenScores, Usage

EOS = 1
SHARE = 0.3


class Writer:
    """A teacher client that writes one of its own tokens to each prompt, and remembers the prompts."""

    def __init__(self, *tokens: int, tells_ids: bool = True) -> None:
        self.token_ids = list(tokens) if tells_ids else None
        self.asked: list[GenerateRequest] = []

    async def generate(self, request: GenerateRequest) -> GenerateReply:
        self.asked.append(request)
        one = Generation(text="", token_ids=self.token_ids, finish_reason="stop")
        return GenerateReply(
            generations=[[one] for _ in request.prompts],
            provenance=FakeEngine(FakeOptions(), "toy").provenance,
            usage=Usage(forward_tokens=sum(map(len, request.prompts))),
        )


@pytest.fixture
def sources_with(make_spec: Any, make_student: Any) -> Any:
    def make(writer: Writer, **rollout: Any) -> Sources:
        wanted = {"prompts_per_step": 60, "max_new_tokens": 7, "source": "teacher_mixed", "teacher_share": SHARE}
        spec = make_spec({"kind": "divergence"}, rollout=wanted | rollout)
        examples = [Example(f"p{i}", [2 + i % 20, 10], None, None, None, i + 1) for i in range(60)]
        client: Any = writer
        teacher = Teacher(TeacherRef(name="toy"), registered(FakeEngine(FakeOptions(), "toy")), client)
        ledger = Ledger()
        return Sources(5, spec.rollout, examples, make_student(spec), Teachers((teacher,)), ledger)

    return make


async def collected(sources: Sources, step: int = 0) -> list[Rollout]:
    return [rollout async for ended in SOURCES["teacher_mixed"](sources, step) for rollout in ended]


async def test_the_teacher_writes_its_share_one_token_after_the_text_so_far(sources_with: Any) -> None:
    writer = Writer(27)
    sources = sources_with(writer)
    student = sources.student
    student.eos_ids = frozenset()  # nothing ends a text, so that every place is written
    rollouts = await collected(sources)
    assert {(r.source, r.finish_reason, len(r.completion_ids)) for r in rollouts} == {("mixed", "length", 7)}
    assert len({r.id for r in rollouts}) == 60
    assert all(r.behaviour_logprob is None for r in rollouts)
    asked = [prompt for request in writer.asked for prompt in request.prompts]
    assert {request.max_tokens for request in writer.asked} == {1}
    assert abs(len(asked) / (60 * 7) - SHARE) < 0.07
    texts = [(*r.prompt_ids.tolist(), *r.completion_ids.tolist()) for r in rollouts]
    for prompt in asked:
        assert any(text[: len(prompt) + 1] == (*prompt, 27) for text in texts)
    assert sources.ledger.tokens_of == {"toy": sum(map(len, asked))}


async def test_a_step_that_is_done_again_writes_the_same(sources_with: Any) -> None:
    one, again, other = [
        {r.id: r.completion_ids.tolist() for r in await collected(sources_with(Writer(27)), step)} for step in (3, 3, 4)
    ]
    assert one == again != other


async def test_the_students_places_are_drawn_from_the_student(sources_with: Any) -> None:
    """One place after one prompt, many times: frequencies are those of (1 - alpha) p beside the teacher's token."""
    sources = sources_with(Writer(27), prompts_per_step=3000, max_new_tokens=1)
    sources.examples = sources.examples[:1]
    rollouts = await collected(sources)
    counts = Counter(int(r.completion_ids[0]) for r in rollouts)
    p = np.exp([sources.student.logprobs(like(rollouts[0], [token]))[0] for token in range(28)])
    expected = (1 - SHARE) * p
    expected[27] += SHARE
    observed = np.array([counts[token] for token in range(28)]) / 3000
    assert np.abs(observed - expected).max() < 0.04  # four deviations of a share of a half


def like(rollout: Rollout, completion: list[int]) -> Rollout:
    ids = np.array(completion, dtype=np.int32)
    return rollout.model_copy(update={"completion_ids": ids, "mask": np.ones(len(ids), dtype=np.bool_)})


async def test_an_end_token_of_the_teacher_ends_the_text(sources_with: Any) -> None:
    rollouts = await collected(sources_with(Writer(EOS)))
    assert {r.finish_reason for r in rollouts} == {"stop", "length"}
    for rollout in rollouts:
        ends = [i for i, token in enumerate(rollout.completion_ids.tolist()) if token == EOS]
        assert ends == ([len(rollout.completion_ids) - 1] if rollout.finish_reason == "stop" else [])


async def test_an_end_that_the_server_keeps_to_itself_ends_the_text_too(sources_with: Any) -> None:
    sources = sources_with(Writer(), max_new_tokens=3)
    rollouts = await collected(sources)
    assert 0 < len(rollouts) < 60
    assert sources.ledger.dropped_rollouts == 60 - len(rollouts)
    silent = replace(sources, spec=sources.spec.model_copy(update={"teacher_share": 1 - 1e-9}))
    with pytest.raises(TeacherFailed, match="ended every text"):
        await collected(silent)


async def test_a_teacher_that_tells_no_token_ids_fails_the_run(sources_with: Any) -> None:
    with pytest.raises(TeacherFailed, match="without its token ids") as failure:
        await collected(sources_with(Writer(27, tells_ids=False)))
    assert failure.value.code == "no_token_ids"


async def test_mu_is_that_of_the_mixture_and_an_unscored_token_has_none(sources_with: Any) -> None:
    sources = sources_with(Writer(27))
    rollouts = await collected(sources)
    scored = []
    for index, rollout in enumerate(rollouts[:4]):
        rows = len(rollout.completion_ids)
        logprob, valid = np.full(rows, -0.7, dtype=np.float32), np.ones(rows, dtype=np.bool_)
        logprob[0] = -np.inf
        valid[-1] = index != 3
        logprob[~valid] = np.nan
        scored.append(Scored(rollout, TokenScores(start=len(rollout.prompt_ids), valid=valid, sampled_logprob=logprob)))
    found = weighed(scored, sources.student, SHARE)
    assert [each.scores is None for each in found] == [False, False, False, True]
    for each in found[:3]:
        p = np.exp(sources.student.logprobs(each.rollout).astype(np.float64))
        q = np.full(len(p), np.exp(-0.7))
        q[0] = 0.0
        assert each.rollout.behaviour_logprob is not None
        np.testing.assert_allclose(np.exp(each.rollout.behaviour_logprob), SHARE * q + (1 - SHARE) * p, rtol=1e-5)
