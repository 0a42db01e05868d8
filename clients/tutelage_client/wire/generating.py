"""Text that a teacher is asked to write."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from tutelage_client.wire.message import Message
from tutelage_client.wire.refusal import in_one_sentence
from tutelage_client.wire.teachers import Provenance, Usage


def _has_role_and_content(message: dict[str, Any]) -> dict[str, Any]:
    if not all(isinstance(message.get(key), str) for key in ("role", "content")):
        raise ValueError("a chat message has a role and a content")
    return message


ChatMessage = Annotated[
    dict[str, Any],
    AfterValidator(_has_role_and_content),
    WithJsonSchema(
        {
            "type": "object",
            "properties": {"role": {"type": "string"}, "content": {"type": "string"}},
            "required": ["role", "content"],
        }
    ),
]
TokenId = Annotated[int, Field(strict=True, ge=0)]
_MESSAGES = "a list of chat messages, which are objects with a role and a content, both texts"
TextOrMessages = Annotated[str | list[ChatMessage], in_one_sentence(f"give a text, or {_MESSAGES}")]
Prompt = Annotated[
    str | list[ChatMessage] | list[TokenId],
    in_one_sentence(f"give a text, a list of token ids, which are whole numbers from 0, or {_MESSAGES}"),
]
StopText = Annotated[str, Field(min_length=1)]


class GenerateRequest(Message):
    """Prompts to continue: text, chat messages, or token ids."""

    prompts: Annotated[list[Prompt], Field(min_length=1)] = Field(description="each is continued `n` times")
    n: int = Field(default=1, ge=1, le=256, description="continuations of each prompt")
    max_tokens: int = Field(default=256, ge=1, description="longest continuation")
    temperature: float = Field(default=1.0, ge=0, le=10, allow_inf_nan=False, description="0 is greedy")
    top_p: float = Field(default=1.0, gt=0, le=1, description="nucleus; 1 samples from the whole vocabulary")
    stop: list[StopText] = Field(default=[], description="texts that end a continuation")
    seed: int | None = Field(default=None, ge=0, lt=2**63, description="the same seed gives the same draws")


class Generation(Message):
    """One continuation."""

    text: str = Field(description="without special tokens")
    token_ids: list[int] | None = Field(default=None, description="as they were drawn")
    logprobs: list[float] | None = Field(default=None, description="of each token under what it was drawn from")
    finish_reason: Literal["stop", "length", "refused"] = Field(
        description="length: cut at max_tokens; refused: a hosted model would not answer, and the text is empty"
    )


class GenerateReply(Message):
    """For each prompt its continuations."""

    generations: list[list[Generation]] = Field(description="in the order of the prompts")
    provenance: Provenance = Field(description="who wrote")
    usage: Usage = Field(description="what it cost")
