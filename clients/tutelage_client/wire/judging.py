"""Rewards that ask the teacher's model, as data: a reward model, or a chat model as a judge."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tutelage_client.wire.message import Message

RubricText = Annotated[str, Field(min_length=1, max_length=20_000)]
_LONGEST_ANSWER = 16  # tokens; the fixed form of an answer takes one to five


class RewardModel(Message):
    """The logit of a reward model for prompt and completion; the teacher's engine must be one."""

    kind: Literal["reward_model"] = "reward_model"


class Rubric(Message):
    """A judge's verbal score of each completion, a whole number, as a share of the range.

    value = (score - lowest) / (highest - lowest); `detail.score` is what the judge said
    """

    kind: Literal["rubric"] = "rubric"
    rubric: RubricText = Field(description="what a good completion is, in words for the judge")
    lowest: int = Field(default=0, ge=0, le=9, description="the worst score, value 0")
    highest: int = Field(default=9, ge=0, le=9, description="the best score, value 1")
    max_tokens: int = Field(
        default=_LONGEST_ANSWER, ge=1, description="of the judge's answer; a model that thinks first needs more"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.lowest >= self.highest:
            raise ValueError(f"lowest is {self.lowest} and highest {self.highest}; the best score must be the higher")
        return self


class Pairwise(Message):
    """A judge's choice between completions, asked twice with their places swapped.

    A win is 1, a loss 0, a tie 0.5; two answers that contradict each other are a tie and counted in
    `detail.contradictions`. The value is the mean over the opponents.
    """

    kind: Literal["pairwise"] = "pairwise"
    rubric: RubricText = Field(description="what makes one completion the better one, in words for the judge")
    against: Literal["reference", "group"] = Field(
        default="group",
        description="reference: the item's; group: the other completions of the same prompt in this request",
    )
    opponents: int = Field(
        default=3, ge=1, le=64, description="with group: how many of the others, by rotation; all where there are fewer"
    )
    max_tokens: int = Field(
        default=_LONGEST_ANSWER, ge=1, description="of the judge's answer; a model that thinks first needs more"
    )
