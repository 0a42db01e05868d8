"""Rollouts: text to learn on, as tokens."""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from tutelage_client.wire.arrays import Flags, Floats, TokenIds
from tutelage_client.wire.message import Message


class Rollout(Message):
    """Text of some policy after a prompt, with what is needed to learn from it.

    mask [n]: tokens the student may learn from; behaviour_logprob [n]: log mu of each token under the policy that wrote
    it, absent when no student did. `id` is derived from run, step, prompt and sample, so that a repeat has the same id.
    """

    id: str
    source: Literal["student", "teacher", "data", "pushed"]
    policy_version: int = Field(ge=0)
    prompt_ids: TokenIds
    completion_ids: TokenIds
    mask: Flags
    behaviour_logprob: Floats | None = None
    finish_reason: Literal["stop", "length"] = "stop"
    prompt: str | list[dict[str, Any]] | None = None
    answer: str | None = None
    tag: str | None = None

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
