"""Completions to grade and their rewards."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from tutelage_client.wire.grading import Grader
from tutelage_client.wire.message import Message
from tutelage_client.wire.teachers import Provenance, Usage


class RewardItem(Message):
    """One completion to grade."""

    prompt: str | list[dict[str, Any]] = Field(description="text or chat messages")
    completion: str = Field(description="what is graded")
    reference: str | None = Field(default=None, description="the known answer, where a grader needs one")


class RewardRequest(Message):
    """Completions and what grades them."""

    items: Annotated[list[RewardItem], Field(min_length=1)] = Field(description="graded one by one")
    reward: Grader = Field(description="as in data.grader of a spec")


class Reward(Message):
    """One grade."""

    value: float | None = Field(allow_inf_nan=False, description="null where it was not graded, never 0.0")
    valid: bool = Field(description="it was graded")
    detail: dict[str, Any] = Field(default={}, description="what the grader found, or why it could not grade")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.valid != (self.value is not None):
            raise ValueError("a valid reward has a value, an invalid one has none")
        return self


class RewardReply(Message):
    """One reward an item, in order."""

    rewards: tuple[Reward, ...] = Field(description="in the order of the items")
    provenance: Provenance = Field(description="the teacher that was asked; graders need no model")
    usage: Usage = Field(description="what it cost")
