"""Completions to grade and their rewards; as bytes, a line that names the schema, then JSON.

A score request is safetensors, which cannot begin with that line, so a queue's payload says by itself which one it is.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from tutelage_client.errors import BadScores, InvalidInput
from tutelage_client.wire.generating import TextOrMessages
from tutelage_client.wire.grading import ModelFree
from tutelage_client.wire.judging import Pairwise, RewardModel, Rubric
from tutelage_client.wire.message import ByKind, Message
from tutelage_client.wire.refusal import explain
from tutelage_client.wire.teachers import Provenance, Usage

ModelReward = RewardModel | Rubric | Pairwise
RewardKind = Annotated[ModelFree | ModelReward, ByKind()]
_REQUEST = b"reward-request.v1\n"
_REPLY = b"reward-reply.v1\n"


class RewardItem(Message):
    """One completion to grade."""

    prompt: TextOrMessages = Field(description="text or chat messages")
    completion: str = Field(description="what is graded")
    reference: str | None = Field(default=None, description="the known answer, the tests, or the opponent")


class RewardRequest(Message):
    """Completions and what grades them."""

    items: Annotated[list[RewardItem], Field(min_length=1)] = Field(description="graded one by one")
    reward: RewardKind = Field(description="a grader as in data.grader of a spec, or what asks the teacher's model")


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
    provenance: Provenance = Field(description="the teacher that was asked, whether or not its model was")
    usage: Usage = Field(description="what it cost")


def needs_model(reward: RewardKind) -> bool:
    """Whether the teacher's model is asked; `Capabilities.rewards` says which kinds a teacher answers."""
    return isinstance(reward, ModelReward)


def is_reward_request(payload: bytes) -> bool:
    """Whether a queue's payload is `encode_reward_request`'s, of any version."""
    return payload.startswith(b"reward-request.")


def encode_reward_request(request: RewardRequest) -> bytes:
    """A reward request as bytes; equal requests are equal bytes."""
    return _REQUEST + request.model_dump_json().encode()


def decode_reward_request(payload: bytes) -> RewardRequest:
    """The request that `encode_reward_request` wrote.

    Raises:
        InvalidInput: another schema, or what is wrong with the request.
    """
    if not payload.startswith(_REQUEST):
        raise InvalidInput(f"the payload's schema is {_first_line(payload)!r}, expected {_first_line(_REQUEST)!r}")
    try:
        return RewardRequest.model_validate_json(payload.removeprefix(_REQUEST))
    except ValidationError as error:
        raise InvalidInput(*explain(error)) from error


def encode_reward_reply(reply: RewardReply) -> bytes:
    """A reward reply as bytes."""
    return _REPLY + reply.model_dump_json().encode()


def decode_reward_reply(payload: bytes) -> RewardReply:
    """The reply that `encode_reward_reply` wrote.

    Raises:
        BadScores: another schema, or not a reward reply.
    """
    if not payload.startswith(_REPLY):
        raise BadScores(f"the teacher's reply has schema {_first_line(payload)!r}, expected {_first_line(_REPLY)!r}")
    try:
        return RewardReply.model_validate_json(payload.removeprefix(_REPLY))
    except ValidationError as error:
        raise BadScores(f"the teacher's reply is not a reward reply: {explain(error)[0]}") from error


def _first_line(payload: bytes) -> str:
    return payload.partition(b"\n")[0][:40].decode(errors="replace")
