"""Rewards of a step's rollouts: what is graded, whose rewards are compared, and the advantages that follow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, pstdev

import torch

from tutelage.core.outcome import advantages, equal_groups
from tutelage.rewards import Graders
from tutelage.trainer.marking import Scored
from tutelage_client.spec import RewardSpec
from tutelage_client.wire import Grader, RewardItem, Rollout

Text = Callable[[Sequence[int]], str]
PromptKey = tuple[str | None, bytes]


@dataclass
class Groups:
    """Rollouts of one prompt, gathered until `size` are there: a question that compares them holds them all."""

    size: int
    _gathered: dict[PromptKey, list[Rollout]] = field(default_factory=dict)

    def full(self, rollouts: Sequence[Rollout]) -> list[list[Rollout]]:
        """The groups that these rollouts complete."""
        complete = []
        for rollout in rollouts:
            own = self._gathered.setdefault(prompt_key(rollout), [])
            own.append(rollout)
            if len(own) == self.size:
                complete.append(self._gathered.pop(prompt_key(rollout)))
        return complete

    def rest(self) -> list[list[Rollout]]:
        """What is left once nothing more is written."""
        left, self._gathered = list(self._gathered.values()), {}
        return left


def prompt_key(rollout: Rollout) -> PromptKey:
    """The same for rollouts of one prompt and tag, whose rewards one teacher gives."""
    return rollout.tag, rollout.prompt_ids.tobytes()


def item(rollout: Rollout, text: Text) -> RewardItem:
    """What is graded of a rollout: its text without special tokens, and its prompt as it was given or as it reads."""
    prompt = text(rollout.prompt_ids.tolist()) if rollout.prompt is None else rollout.prompt
    return RewardItem(prompt=prompt, completion=text(rollout.completion_ids.tolist()), reference=rollout.answer)


async def graded(scored: Sequence[Scored], grader: Grader, text: Text, graders: Graders) -> list[Scored]:
    """The same with the rewards of a grader that needs no model."""
    rewards = await graders.grade(grader, [item(s.rollout, text) for s in scored])
    return [replace(s, reward=reward) for s, reward in zip(scored, rewards, strict=True)]


def with_advantages(scored: Sequence[Scored], spec: RewardSpec) -> tuple[list[Scored], dict[str, float | None]]:
    """The same with their advantages, NaN where there is no valid reward, and the metrics of the rewards.

    Rollouts of a step that answer the same prompt under the same tag are one group.
    """
    values = [s.reward.value if s.reward is not None and s.reward.valid else None for s in scored]
    prompts = {prompt: group for group, prompt in enumerate({prompt_key(s.rollout): None for s in scored})}
    reward_B = torch.tensor([torch.nan if v is None else v for v in values], dtype=torch.float64)
    group_B = torch.tensor([prompts[prompt_key(s.rollout)] for s in scored])
    advantage_B = advantages(spec.advantage, reward_B, group_B).tolist()
    given = [value for value in values if value is not None]
    metrics: dict[str, float | None] = {
        "reward": fmean(given) if given else None,
        "reward_std": pstdev(given) if given else None,
        "equal_groups": float(equal_groups(reward_B, group_B).double().mean()) if given else None,
    }
    return [replace(s, advantage=a) for s, a in zip(scored, advantage_B, strict=True)], metrics
