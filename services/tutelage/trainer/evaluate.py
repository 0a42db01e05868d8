"""How good the student is on held-out lines: sampled, graded, averaged; and its loss on their completions."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import NamedTuple

import numpy as np
import torch

from tutelage.core.objective import Objective
from tutelage.engines.sampling import Sampled
from tutelage.rewards import grade
from tutelage.trainer.collate import micro_batches
from tutelage.trainer.data import Example
from tutelage.trainer.marking import Scored
from tutelage.trainer.sourcing import seed_for
from tutelage.trainer.student import Student
from tutelage_client.errors import InvalidInput
from tutelage_client.spec import RunSpec
from tutelage_client.wire import Reward, RewardItem, Rollout


class Evaluation(NamedTuple):
    """answers: a few of what was written, to the same lines at every evaluation"""

    metrics: dict[str, float]
    answers: list[Rollout]


def evaluate(student: Student, examples: list[Example], spec: RunSpec) -> Evaluation:
    """`accuracy`: mean reward over all prompts and samples, `accuracy/TAG` over those of a tag; `eval_loss`.

    The same draws at every evaluation of a run.

    Raises:
        InvalidInput: an example could not be graded.
    """
    prompts = [example for example in examples for _ in range(spec.eval.samples)]
    shown = {line * spec.eval.samples for line in spread(len(examples), spec.diagnostics.held_out)}
    answers: dict[int, Rollout] = {}
    settings = spec.rollout.model_copy(update={"temperature": spec.eval.temperature, "top_p": 1.0})
    generator = torch.Generator().manual_seed(seed_for(spec.seed, 0, "eval"))
    items: list[RewardItem] = []
    tags: list[str | None] = []
    lengths: list[int] = []
    truncated = 0
    for sampled in student.sample([example.prompt_ids for example in prompts], settings, generator):
        example = prompts[sampled.index]
        text = student.text(sampled.token_ids)
        items.append(RewardItem(prompt=example.prompt, completion=text, reference=example.answer))
        tags.append(example.tag)
        lengths.append(len(sampled.token_ids))
        truncated += sampled.finish_reason == "length"
        if sampled.index in shown:
            answers[sampled.index] = _answer(example, sampled, student.step)
    metrics = {
        **averaged(grade(spec.data.grader, items), tags, spec.data.grader.kind),
        "eval_length": mean(lengths),
        "eval_truncated": truncated / len(items),
        **completion_loss(student, examples, spec),
    }
    return Evaluation(metrics, [answers[place] for place in sorted(answers)])


def spread(lines: int, count: int) -> list[int]:
    """So many of the lines from 0 on, or all, as far from one another as can be."""
    count = min(count, lines)
    return [nth * lines // count for nth in range(count)]


def _answer(example: Example, sampled: Sampled, step: int) -> Rollout:
    return Rollout(
        id=f"held-out-{example.line}-at-{step}",
        source="student",
        policy_version=step,
        prompt_ids=np.asarray(example.prompt_ids, dtype=np.int32),
        completion_ids=np.asarray(sampled.token_ids, dtype=np.int32),
        mask=np.ones(len(sampled.token_ids), dtype=np.bool_),
        behaviour_logprob=np.asarray(sampled.logprobs, dtype=np.float32),
        finish_reason=sampled.finish_reason,
        prompt=example.prompt,
        answer=example.answer,
        tag=example.tag,
    )


def completion_loss(student: Student, examples: Sequence[Example], spec: RunSpec) -> dict[str, float]:
    """`eval_loss`: mean -log p over the tokens of the completions that lines have, nats; nothing where none has one."""
    written = [_as_rollout(example) for example in examples if example.completion_ids is not None]
    scored = [Scored(rollout, None) for rollout in written]
    tokens = spec.optim.micro_batch_tokens
    batches = micro_batches(scored, tokens, student.pad_id, student.device, {}, asks_teacher=False)
    return {"eval_loss": student.measure(batches, Objective(kind="supervised"))["loss"]} if written else {}


def _as_rollout(example: Example) -> Rollout:
    assert example.completion_ids is not None
    return Rollout(
        id=f"line-{example.line}",
        source="data",
        policy_version=0,
        prompt_ids=np.asarray(example.prompt_ids, dtype=np.int32),
        completion_ids=np.asarray(example.completion_ids, dtype=np.int32),
        mask=np.ones(len(example.completion_ids), dtype=np.bool_),
    )


def averaged(rewards: Sequence[Reward], tags: Sequence[str | None], grader: str) -> dict[str, float]:
    """`accuracy`, `accuracy/TAG` of each tag, and `eval_ungraded`: the share that the machine left ungraded.

    Raises:
        InvalidInput: a line of the data lacks what the grader needs, or no answer could be graded.
    """
    ungraded = [reward for reward in rewards if not reward.valid]
    unfit = [reward for reward in ungraded if "outcome" not in reward.detail]
    if unfit or len(ungraded) == len(rewards):
        found = unfit or ungraded
        message = f"data.eval: {len(found)} of {len(rewards)} samples cannot be graded by {grader!r}: "
        remedy = "; give every line an answer that it can use" if unfit else ""
        raise InvalidInput(message + found[0].detail["reason"] + remedy, "data.eval")
    graded = [(reward.value, tag) for reward, tag in zip(rewards, tags, strict=True) if reward.value is not None]
    by_tag: dict[str, list[float]] = {}
    for value, tag in graded:
        if tag is not None:
            by_tag.setdefault(tag, []).append(value)
    return {
        "accuracy": mean(value for value, _ in graded),
        **{f"accuracy/{tag}": mean(by_tag[tag]) for tag in sorted(by_tag)},
        "eval_ungraded": len(ungraded) / len(rewards),
    }
