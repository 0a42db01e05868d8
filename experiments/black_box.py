"""A teacher that returns text alone: does a student learn more from its marks or from its text, at equal tokens?

The hosted API is the fake that ships, with the teacher of examples/skill behind it and a rate limit that strikes again
and again. Both arms start from the student of examples/skill, are tuned on the same grid, and end when the hosted model
has read and written the same number of tokens.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from experiments.comparison import EXAMPLES, Comparison, compare, tuning_table, worded, write_result
from tutelage.engines.fakes import ToyServer, listening
from tutelage.engines.fakes.hosted import Model, hosted_app
from tutelage.engines.fakes.toy import CALLS_BETWEEN_REFUSALS
from tutelage.engines.hf import HfEngine, open_hf
from tutelage.engines.options import FakeOptions, HfOptions
from tutelage.rewards import grade, judge_rewards
from tutelage.rewards.judging import Answer, Messages
from tutelage.standalone.arms import first_and_last
from tutelage.standalone.children import Child
from tutelage.standalone.stack import GRACE_S, Stack, free_port
from tutelage.standalone.stages import Stage
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.spec import load_spec
from tutelage_client.wire import GenerateRequest, Generation, LastNumber, RewardItem, RewardRequest, RunView, Usage

RATES = (3e-4, 1e-3)
SEEDS = (7, 8, 9)
STAGE = Stage(
    name="black_box",
    title="A teacher that returns text alone",
    task="Column addition written out digit by digit.",
    teacher="hosted",
    arms=("judged", "seqkd"),
    reading="",
)
SKILL = EXAMPLES / "skill"
WANTED = 0.10


async def black_box(out: Path) -> None:
    """Tune, then measure; write `out` and the page beside it."""
    toy = ToyServer(FakeOptions(), ["rate_limited"], name="adder")
    engine = await asyncio.to_thread(model_of, "teacher")
    comparison = Comparison(
        stage=STAGE,
        arms={arm: [{"lr": lr} for lr in RATES] for arm in STAGE.arms},
        seeds=SEEDS,
        measure=rewards,
        prompts="../skill",
        teachers={},
        beside=partial(hosted, toy, engine),
    )
    result = await compare(comparison, f"python -m experiments black_box --json {out}")
    result["hosted"] = {"calls": toy.calls, "refused": toy.refused}
    result["words_around"] = await words_around()
    result["marks"] = await marks_of_the_cold_start(engine)
    write_result(out, result, page(result))


def model_of(name: str) -> HfEngine:
    return open_hf(HfOptions(model=str(SKILL / name), device="cpu"), name)


@asynccontextmanager
async def hosted(toy: ToyServer, engine: HfEngine, stack: Stack) -> AsyncIterator[None]:
    """The hosted API in this process, and before it a teacher process of the stack."""
    async with listening(hosted_app(toy, engine)) as upstream, CoordinatorClient(stack.url) as client:

        async def ready() -> bool:
            return any(teacher.name == STAGE.teacher and teacher.available for teacher in await client.teachers())

        served = ["--engine", "chat", "--upstream", upstream, "--upstream-model", toy.name, "--name", STAGE.teacher]
        reach = ["--port", str(free_port()), "--coordinator", stack.url, "--redis-url", stack.redis_url]
        argv = [sys.executable, "-m", "tutelage.teacher", *served, *reach]
        log = stack.options.data_dir / "logs" / f"{STAGE.teacher}.log"
        teacher = Child(STAGE.teacher, argv, log, stack.coordinator.env, ready=ready)
        try:
            await teacher.start()
            yield
        finally:
            await teacher.stop(GRACE_S)


async def rewards(client: CoordinatorClient, run: RunView) -> dict[str, float]:
    """Of a run that was judged the mean reward of its first and last step, and how many rollouts had none."""
    rows = await client.metrics(run.id)
    if not any("reward" in row for row in rows):
        return {}
    first, last = first_and_last(rows, "reward")
    return {"reward_first": first, "reward_last": last, "unrewarded": sum(row.get("unrewarded") or 0 for row in rows)}


async def marks_of_the_cold_start(judge: HfEngine) -> dict[str, float]:
    """What the judge's marks tell of the cold start's own answers to the problems for tuning, right and wrong."""
    lines = [json.loads(line) for line in (SKILL / "tune.jsonl").read_text().splitlines()]
    student, model = await asyncio.to_thread(model_of, "student"), Model(judge)
    request = GenerateRequest(prompts=[line["prompt"] for line in lines], max_tokens=64, seed=0)
    texts = [one.text for (one,) in (await student.generate(request))[0]]
    marks = await model.marks([model.answered(line["prompt"], text) for line, text in zip(lines, texts, strict=True)])
    items = [
        RewardItem(prompt=line["prompt"], completion=text, reference=line["answer"])
        for line, text in zip(lines, texts, strict=True)
    ]
    rewards = await asyncio.to_thread(grade, LastNumber(), items)
    return told_apart(marks, [bool(reward.value) for reward in rewards])


async def words_around() -> int:
    """Characters of a judge's question beside prompt and answer."""
    asked: list[Any] = []

    async def ask(questions: Sequence[Messages], _: int) -> tuple[list[Answer], Usage]:
        asked.extend(message["content"] for question in questions for message in question)
        return [Generation(text="Score: 0", finish_reason="stop")], Usage()

    judged = load_spec(EXAMPLES / STAGE.name / "judged.toml").reward
    assert judged is not None
    await judge_rewards(RewardRequest(items=[RewardItem(prompt="", completion="")], reward=judged.by), ask)
    return sum(map(len, asked))


def told_apart(marks: Sequence[int], right: Sequence[bool]) -> dict[str, float]:
    """Mean marks of right and wrong answers, and the share of pairs of both in which the right one has more (AUC)."""
    good = [mark for mark, is_right in zip(marks, right, strict=True) if is_right]
    bad = [mark for mark, is_right in zip(marks, right, strict=True) if not is_right]
    wins = [(a > b) + 0.5 * (a == b) for a in good for b in bad]
    return {"right": statistics.mean(good), "wrong": statistics.mean(bad), "auc": statistics.mean(wins)}


def page(result: dict[str, Any]) -> str:
    """The result as a page of the docs."""
    arms, marks, api = result["arms"], result["marks"], result["hosted"]
    gain = arms["judged"]["after"] - arms["judged"]["before"]
    verdict = "It holds" if gain >= WANTED else "It does not hold"
    lines = [
        "# A teacher that returns text alone",
        "",
        f"Made by `{result['command']}` at commit {result['commit']} on {result['device']}. Metric: share of right",
        "answers, sampled at temperature 1, two samples a problem, on problems that were neither trained nor tuned on.",
        f"Mean of seeds {', '.join(map(str, result['seeds']))}; lowest and highest in brackets.",
        "",
        "The teacher is the fake hosted chat API with the model of examples/skill/teacher behind it. No",
        f"log-probability leaves it, and every {CALLS_BETWEEN_REFUSALS}th call gets a 429 with `Retry-After: 1`:",
        f"{api['refused']:,} of {api['calls']:,} in this experiment.",
        "",
        "- `judged`: the student writes eight answers to a prompt, the judge says a digit for each, and the student",
        "  learns from the digits by a group-normalised policy gradient with a KL to its start.",
        "- `seqkd`: the hosted model writes, and the student learns that text.",
        "",
        "| arm | setting | steps | before | after | teacher tokens |",
        "|---|---|---|---|---|---|",
        *(_line(arm, own) for arm, own in arms.items()),
        "",
        "Claim: judgements alone lift the student by at least 10 points.",
        f"{verdict} here: {100 * gain:+.1f} points on the mean of the seeds.",
        "",
        f"For these tokens the judge marked about {asked('judged') * arms['judged']['steps']:,} answers, and the",
        f"teacher wrote about {asked('seqkd') * arms['seqkd']['steps']:,} texts. A mark is one digit for an answer,",
        "and a gradient has to find out which tokens earned it; a text shows every token of a mostly right answer.",
        "Where the hosted model can do the task itself and its text may be used, imitate it first.",
        "",
        "## What the black box computes",
        "",
        "A digit is 9 times the geometric mean of the probabilities that the hosted model itself gives to the answer's",
        "tokens and to its end, rounded: a judge that knows this task, not a general one. It is computed inside of the",
        "server, from the prompt and the answer in the judge's usual question. The student's side sees one line,",
        "`Score: 7`, which is less than the log-probability of the whole answer and says nothing of single tokens.",
        f"On the cold start's own answers the mean digit is {marks['right']:.1f} for right ones and",
        f"{marks['wrong']:.1f} for wrong ones; of a right and a wrong answer the right one has more in",
        f"{marks['auc']:.0%} of pairs, ties counted half.",
        "",
        "Tokens are those that the hosted model reads and writes, by the teacher's account, one a character: of a",
        "judge's question prompt and answer, of its verdict all. Rules and rubric around them are not counted, as this",
        f"server does not show them to its model; they are {result['words_around']} characters. A general chat",
        "model would read and bill them: there a judgement costs several times as much as here, a text the same.",
        "",
        "## What was tuned",
        "",
        f"Both arms on the same learning rates, once each, seed {result['tuning']['seed']}, on problems apart",
        f"(`{result['tuning']['on']}`). The best of each arm went into the table above.",
        "",
        *tuning_table(result),
    ]
    return "\n".join(lines) + "\n"


def asked(arm: str) -> int:
    """Answers, or texts, of one step."""
    rollout = load_spec(EXAMPLES / STAGE.name / f"{arm}.toml").rollout
    return rollout.prompts_per_step * rollout.samples_per_prompt


def _line(arm: str, own: dict[str, Any]) -> str:
    spread = f"{own['after']:.1%} ({own['lowest']:.1%} to {own['highest']:.1%})"
    start = f"| {arm} | {worded(own['setting'])} | {own['steps']} | {own['before']:.1%} | {spread} |"
    return f"{start} {own['teacher_tokens']:,} |"
