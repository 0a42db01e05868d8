"""A reward of each whole rollout, and how it becomes what its tokens learn from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tutelage_client.spec.ranges import Positive
from tutelage_client.spec.sections import RolloutSpec
from tutelage_client.spec.sums import Objective, signals_asked
from tutelage_client.wire.grading import ExactMatch
from tutelage_client.wire.judging import Pairwise
from tutelage_client.wire.message import Message
from tutelage_client.wire.refusal import refused
from tutelage_client.wire.rewarding import RewardKind
from tutelage_client.wire.teachers import Signal

AdvantageKind = Literal["group_normalised", "group_centred", "leave_one_out", "batch_normalised"]
# Which objective can have a reward beside it.
REWARDED = ("reward", "divergence", "policy_gradient", "sum")


class RewardSpec(Message):
    """Learn from a reward of each rollout: alone with objective kind `reward`, else beside the teacher's signal.

    loss = teacher's signal + weight x clipped policy gradient, both as means over all learned tokens of the step. A
    rollout without a valid reward is left out and counted.
    """

    by: RewardKind = Field(
        default=ExactMatch(), description="what gives it: a grader, or a reward that asks the teacher's model"
    )
    advantage: AdvantageKind = Field(
        default="group_normalised",
        description="of a rollout, over those of its prompt: group_normalised (GRPO), group_centred (Dr. GRPO: not "
        "divided by the deviation), leave_one_out (RLOO); batch_normalised over the whole step (REINFORCE++)",
    )
    weight: Positive = Field(default=1.0, description="of the reward's term where the teacher's signal counts 1")
    clip_below: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.2, description="a falling p/mu is not followed below 1 minus this"
    )
    clip_above: Positive = Field(default=0.2, description="a rising p/mu is not followed above 1 plus this")
    teacher_share: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0,
        description="with objective kind `reward`: the ratio is p / (mu^(1 - share) q^share), with the teacher in it "
        "(TRRD); 0 asks no teacher",
    )
    shaping: Positive = Field(
        default=0.1, description="gamma of the ratio p / (p + gamma) of pushed text that has no behaviour_logprob"
    )

    @property
    def judged_together(self) -> bool:
        """Whether the rollouts of a prompt are compared with each other, so that one question holds them all."""
        return isinstance(self.by, Pairwise) and self.by.against == "group"


def signals_heard(objective: Objective, reward: RewardSpec | None) -> frozenset[Signal]:
    """What objective and reward ask of the teacher at every token; empty where they need no scores."""
    shared = reward is not None and reward.teacher_share > 0
    return signals_asked(objective) | (frozenset({Signal.SAMPLED}) if shared else frozenset())


def check_reward(reward: RewardSpec | None, rollout: RolloutSpec, objective: Objective) -> None:
    """A reward is there exactly if it can be learned from, and has what its advantage compares."""
    if reward is None:
        if objective.kind == "reward":
            raise refused("reward", 'objective.kind = "reward" learns from rewards alone; add [reward]')
        return
    if objective.kind not in REWARDED:
        able = ", ".join(REWARDED)
        raise refused("reward", f"objective.kind = {objective.kind!r} learns from no reward; use {able}, or remove it")
    if rollout.source not in ("student", "paired", "pushed"):
        able = "student, paired or pushed"
        sentence = f"a reward is learned from by text of the student, this is {rollout.source!r}; use {able}"
        raise refused("rollout.source", sentence)
    if reward.judged_together and rollout.source == "paired":
        raise refused("reward.by", "pairwise compares text of the student alone; use a reward of each text by itself")
    if reward.teacher_share and objective.kind != "reward":
        sentence = f"goes with objective.kind = 'reward', {objective.kind!r} hears the teacher already; remove it"
        raise refused("reward.teacher_share", sentence)
    compares = reward.judged_together or reward.advantage != "batch_normalised"
    if compares and rollout.texts_per_prompt < 2:
        named = "by pairwise" if reward.judged_together else reward.advantage
        sentence = f"1 leaves {named} nothing to compare; give at least 2, or use advantage batch_normalised"
        raise refused("rollout.samples_per_prompt", sentence)
