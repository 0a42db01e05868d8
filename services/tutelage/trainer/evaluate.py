"""How good the student is on held-out lines: sampled, graded, averaged; and its loss on their completions."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

import numpy as np
import torch

from tutelage.core.objective import Objective
from tutelage.rewards import grade
from tutelage.trainer.collate import micro_batches
from tutelage.trainer.data import Example
from tutelage.trainer.marking import Scored
from tutelage.trainer.sourcing import seed_for
from tutelage.trainer.student import Student
from tutelage_client.errors import InvalidInput
from tutelage_client.spec import RunSpec
from tutelage_client.wire import Reward, RewardItem, Rollout


def evaluate(student: Student, examples: list[Example], spec: RunSpec) -> dict[str, float]:
    """`accuracy`: mean reward over all prompts and samples, `accuracy/TAG` over those of a tag; `eval_loss`.

    The same draws at every evaluation of a run.

    Raises:
        InvalidInput: an example could not be graded.
    """
    prompts = [example for example in examples for _ in range(spec.eval.samples)]
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
    return {
        **averaged(grade(spec.data.grader, items), tags, spec.data.grader.kind),
        "eval_length": mean(lengths),
        "eval_truncated": truncated / len(items),
        **completion_loss(student, examples, spec),
    }


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
