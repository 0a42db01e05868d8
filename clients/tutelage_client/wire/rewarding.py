"""Completions to grade and their rewards."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from tutelage_client.wire.grading import Grader
from tutelage_client.wire.message import Message
from tutelage_client.wire.teachers import Provenance, Usage


class RewardItem(Message):
    """One completion to grade. `reference` is the known answer where a grader needs one."""

    prompt: str | list[dict[str, Any]]
    completion: str
    reference: str | None = None


class RewardRequest(Message):
    items: Annotated[list[RewardItem], Field(min_length=1)]
    reward: Grader


class Reward(Message):
    """`valid` False: not graded; the value is then null, never 0.0."""

    value: float | None = Field(allow_inf_nan=False)
    valid: bool
    detail: dict[str, Any] = {}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.valid != (self.value is not None):
            raise ValueError("a valid reward has a value, an invalid one has none")
        return self


class RewardReply(Message):
    rewards: tuple[Reward, ...]
    provenance: Provenance
    usage: Usage
