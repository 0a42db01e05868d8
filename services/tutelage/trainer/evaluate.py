"""How good the student is on held-out prompts: sampled, graded, averaged."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

import torch

from tutelage.rewards.graders import grade
from tutelage.trainer.data import Example
from tutelage.trainer.rollouts import seed_for
from tutelage.trainer.student import Student
from tutelage_client.errors import InvalidInput
from tutelage_client.spec import RunSpec
from tutelage_client.wire import RewardItem


def evaluate(student: Student, examples: list[Example], spec: RunSpec) -> dict[str, float]:
    """`accuracy`: mean reward over all prompts and samples, `accuracy/TAG` over those of a tag.

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
    rewards = grade(spec.data.grader, items)
    values = [reward.value for reward in rewards if reward.value is not None]
    if len(values) != len(items):
        raise InvalidInput(
            f"data.eval: {len(items) - len(values)} of {len(items)} samples cannot be graded by "
            f"{spec.data.grader.kind!r}; give every line an answer",
            "data.eval",
        )
    return {
        "accuracy": mean(values),
        "eval_length": mean(lengths),
        "eval_truncated": truncated / len(items),
        **_by_tag(tags, values),
    }


def _by_tag(tags: Sequence[str | None], values: Sequence[float]) -> dict[str, float]:
    """The mean value of each tag, in the order of the tags' names."""
    grouped: dict[str, list[float]] = {}
    for tag, value in zip(tags, values, strict=True):
        if tag is not None:
            grouped.setdefault(tag, []).append(value)
    return {f"accuracy/{tag}": mean(grouped[tag]) for tag in sorted(grouped)}
