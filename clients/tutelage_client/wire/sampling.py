"""Text that a run's samplers write: a job for each rollout, and the weights that it is to be written with."""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from tutelage_client.wire.arrays import Floats, TokenIds
from tutelage_client.wire.forms import SHA256
from tutelage_client.wire.message import Message


def sampler_queue(name: str) -> str:
    """The queue on which samplers of this name take work; no teacher's name has a slash."""
    return f"sampler/{name}"


class SnapshotRef(Message):
    """A student as it was at one policy version, published in a directory that trainer and samplers share."""

    path: str = Field(min_length=1, description="its directory")
    sha256: str = Field(pattern=SHA256, description="of its snapshot.json, which has that of every file")
    policy_version: int = Field(ge=0, description="optimiser steps behind its weights")


class SampleRequest(Message):
    """One text to write. What is drawn follows from seed, place and places, whoever writes it, and beside what."""

    snapshot: SnapshotRef = Field(description="whose text it is to be")
    prompt_ids: TokenIds = Field(description="at least one token")
    place: int = Field(ge=0, description="of the text among those of its step")
    places: int = Field(ge=1, description="texts of the step")
    seed: int = Field(ge=0, lt=2**63, description="of the step's draws")
    max_new_tokens: int = Field(ge=1, description="longest text")
    temperature: float = Field(gt=0, le=10, allow_inf_nan=False, description="of the sampling")
    top_p: float = Field(gt=0, le=1, description="nucleus; 1 samples from the whole vocabulary")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.prompt_ids) == 0:
            raise ValueError("prompt_ids has no tokens; give at least one")
        if self.place >= self.places:
            raise ValueError(f"place {self.place} is beyond the {self.places} texts of the step")
        return self


class SampledText(Message):
    """What was written."""

    policy_version: int = Field(ge=0, description="of the weights that wrote it")
    token_ids: TokenIds = Field(description="an end token that was drawn is the last")
    logprobs: Floats = Field(description="log mu of each token, under what was drawn from")
    finish_reason: Literal["stop", "length"] = Field(description="length: cut at the limit")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.token_ids) == 0 or len(self.logprobs) != len(self.token_ids):
            raise ValueError(f"{len(self.logprobs)} log-probs for {len(self.token_ids)} tokens; give one of each token")
        if not (np.isfinite(self.logprobs).all() and self.logprobs.max() <= 1e-4):
            raise ValueError("logprobs must be finite and at most 0")
        return self


class SampleReply(Message):
    """The answer to a `SampleRequest`."""

    text: SampledText | None = Field(
        description="null: the snapshot is there no more, and so nobody waits for its text"
    )
