"""Text that a teacher is asked to write."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from tutelage_client.wire.message import Message
from tutelage_client.wire.teachers import Provenance, Usage

Prompt = str | list[dict[str, Any]] | list[int]


class GenerateRequest(Message):
    prompts: Annotated[list[Prompt], Field(min_length=1)]
    n: int = Field(default=1, ge=1, le=256)
    max_tokens: int = Field(default=256, ge=1)
    temperature: float = Field(default=1.0, ge=0, le=10, allow_inf_nan=False)
    top_p: float = Field(default=1.0, gt=0, le=1)
    stop: list[str] = []
    seed: int | None = Field(default=None, ge=0, lt=2**63)


class Generation(Message):
    text: str
    token_ids: list[int] | None = None
    logprobs: list[float] | None = None
    finish_reason: Literal["stop", "length"]


class GenerateReply(Message):
    generations: list[list[Generation]]
    provenance: Provenance
    usage: Usage
