"""The experiment with a hosted teacher: its arms differ in how they ask, and a real model judges behind the API."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from experiments.black_box import STAGE, model_of, page, told_apart, words_around
from experiments.comparison import Planned
from judging import directly

from tutelage.engines import open_engine
from tutelage.engines.fakes import ToyServer, listening
from tutelage.engines.fakes.hosted import Together, hosted_app, mark
from tutelage.engines.fakes.toy import CALLS_BETWEEN_REFUSALS
from tutelage.engines.hf import HfEngine
from tutelage.engines.options import ChatOptions, FakeOptions
from tutelage.rewards import judge_rewards
from tutelage_client.errors import TutelageError
from tutelage_client.wire import GenerateRequest, Pairwise, RewardItem, RewardRequest, Rubric

RUBRIC = Rubric(rubric="It is right.")
RIGHT, SLIP, NONSENSE = "7+5+0=2,1;4+8+1=3,1>132", "7+5+0=2,1;4+8+1=3,1>133", "++++"


@pytest.fixture(scope="module")
def adder() -> HfEngine:
    return model_of("teacher")


@pytest.fixture(autouse=True)
def in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])


def test_both_arms_start_alike_and_may_spend_as_much() -> None:
    judged, seqkd = (Planned(STAGE, arm, {}, 7, "../skill/eval.jsonl").spec() for arm in STAGE.arms)
    assert (judged.student, judged.data, judged.budget) == (seqkd.student, seqkd.data, seqkd.budget)
    assert judged.budget.teacher_tokens is not None
    assert (judged.teachers[0].name, seqkd.teachers[0].name) == (STAGE.teacher, STAGE.teacher)


async def test_a_real_model_behind_a_chat_api_judges_and_writes_and_gives_no_logprobs(adder: HfEngine) -> None:
    toy = ToyServer(FakeOptions(), name="adder")
    async with listening(hosted_app(toy, adder)) as url:
        teacher = await open_engine(ChatOptions(upstream=url, upstream_model="adder"), "hosted")
        assert (await teacher.connect())["output_logprobs"] is False
        items = [RewardItem(prompt="47+85:", completion=text) for text in (RIGHT, SLIP, NONSENSE, "")]
        rewards, usage = await judge_rewards(RewardRequest(items=items, reward=RUBRIC), directly(teacher))
        right, slip, nonsense, empty = (reward.value or 0.0 for reward in rewards)
        assert right == 1.0 and right > slip > nonsense and empty < slip
        read = sum(len("47+85:") + len(item.completion) + len("E") for item in items)
        assert (usage.forward_tokens, usage.generated_tokens) == (read, len("Score: 9") * len(items))
        ((text,),), spent = await teacher.generate(GenerateRequest(prompts=["47+85:"], max_tokens=64, temperature=0.0))
        assert (text.text, text.logprobs, text.finish_reason) == (RIGHT, None, "stop")
        assert (spent.forward_tokens, spent.generated_tokens) == (len("47+85:"), len(RIGHT) + 1)
        with pytest.raises(TutelageError, match="maximum context length is 128"):
            await teacher.generate(GenerateRequest(prompts=["1" * 100], max_tokens=64))
        with pytest.raises(TutelageError, match="one answer at a time"):
            pairwise = RewardRequest(items=items[:2], reward=Pairwise(rubric="It is right."))
            await judge_rewards(pairwise, directly(teacher))
        await teacher.close()


async def test_a_rate_limit_that_strikes_again_and_again_loses_no_judgement(adder: HfEngine) -> None:
    toy = ToyServer(FakeOptions(), ["rate_limited"], name="adder")
    async with listening(hosted_app(toy, adder)) as url:
        teacher = await open_engine(ChatOptions(upstream=url, upstream_model="adder"), "hosted")
        await teacher.connect()
        items = [RewardItem(prompt="47+85:", completion=RIGHT)] * (2 * CALLS_BETWEEN_REFUSALS)
        rewards, _ = await judge_rewards(RewardRequest(items=items, reward=RUBRIC), directly(teacher))
        assert [reward.value for reward in rewards] == [1.0] * len(items)
        assert toy.refused == 2
        await teacher.close()


async def test_what_is_asked_while_the_model_works_is_one_batch_after_it() -> None:
    batches: list[list[int]] = []

    async def answer(asked: list[int]) -> list[int]:
        batches.append(asked)
        await asyncio.sleep(0)
        return [-each for each in asked]

    together = Together(answer, asyncio.Lock())
    assert await asyncio.gather(*map(together.ask, range(1, 5))) == [-1, -2, -3, -4]
    assert sorted(each for batch in batches for each in batch) == [1, 2, 3, 4]
    assert len(batches) < 4


def test_a_mark_is_nine_times_the_geometric_mean_of_the_probabilities() -> None:
    assert [mark([0.0, 0.0]), mark([-0.7, -0.7]), mark([-50.0, 0.0])] == [9, 4, 0]


def test_how_well_marks_tell_right_from_wrong() -> None:
    assert told_apart([9, 5, 5, 1], [True, True, False, False]) == {"right": 7, "wrong": 3, "auc": 0.875}


async def test_the_words_of_a_question_are_counted_without_what_is_judged() -> None:
    assert 400 < await words_around() < 800


def test_the_page_is_made_of_the_result() -> None:
    folder = Path("docs/results")
    result = json.loads((folder / "black_box.json").read_text())
    assert (folder / "black_box.md").read_text() == page(result)
    assert [(run["seed"], run["arm"]) for run in result["runs"]] == [
        (seed, arm) for seed in result["seeds"] for arm in STAGE.arms
    ]
