"""Rollouts: text to learn on, as tokens."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from tutelage_client.wire.arrays import Flags, Floats, TokenIds
from tutelage_client.wire.forms import LINE
from tutelage_client.wire.message import Message
from tutelage_client.wire.refusal import in_one_sentence

# It is part of an address.
RolloutId = Annotated[str, Field(min_length=1, max_length=512, pattern=LINE)]

_SHOWN = in_one_sentence("give a text or a list of chat messages, which are objects")


class Rollout(Message):
    """Text of some policy after a prompt, with what is needed to learn from it. Arrays have one entry a token."""

    id: RolloutId = Field(description="the same text of the same run has the same id, so that a repeat counts once")
    source: Literal["student", "teacher", "mixed", "data", "pushed"] = Field(
        description="who wrote it; mixed: student and teacher by turns"
    )
    policy_version: int = Field(ge=0, description="optimiser steps of the policy that wrote it")
    prompt_ids: TokenIds = Field(description="at least one token")
    completion_ids: TokenIds = Field(description="at least one token; an end token that was drawn is the last")
    mask: Flags = Field(description="which completion tokens may be learned from")
    behaviour_logprob: Floats | None = Field(
        default=None, description="log mu of each completion token under the policy that wrote it; null: no student did"
    )
    finish_reason: Literal["stop", "length"] = Field(default="stop", description="length: cut at the limit")
    prompt: Annotated[str | list[dict[str, Any]], _SHOWN] | None = Field(default=None, description="for people")
    answer: str | None = Field(default=None, description="the known answer to the prompt")
    tag: str | None = Field(default=None, description="the prompt's tag")

    @model_validator(mode="after")
    def _check(self) -> Self:
        n = len(self.completion_ids)
        if n == 0 or len(self.prompt_ids) == 0:
            raise ValueError("a rollout has at least one prompt token and one completion token")
        if len(self.mask) != n:
            raise ValueError(f"mask has {len(self.mask)} entries for {n} completion tokens")
        if self.behaviour_logprob is not None:
            if len(self.behaviour_logprob) != n:
                raise ValueError(
                    f"behaviour_logprob has {len(self.behaviour_logprob)} entries for {n} completion tokens"
                )
            if not (np.isfinite(self.behaviour_logprob).all() and self.behaviour_logprob.max() <= 1e-4):
                raise ValueError("behaviour_logprob must be finite and at most 0")
        return self
