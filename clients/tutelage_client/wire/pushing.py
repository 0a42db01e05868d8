"""Rollouts that were written elsewhere, on their way into a run: each is judged by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, SkipValidation

from tutelage_client.wire.message import Message
from tutelage_client.wire.rollouts import Rollout


class PushedRollouts(Message):
    """Trajectories from elsewhere. Who takes them judges each by itself, so that a bad one keeps no other out."""

    rollouts: list[SkipValidation[Rollout]] = Field(
        min_length=1, max_length=1024, description="an id that was seen before is ignored"
    )


class RefusedRollout(Message):
    """One of them that was not taken."""

    index: int = Field(description="its place in what was sent, from 0")
    id: str | None = Field(description="as it was sent; null where that is no text")
    status: Literal[422] = Field(default=422, description="what it would be answered with alone")
    code: Literal["invalid_input"] = Field(default="invalid_input", description="as in a problem")
    field: str = Field(description="dotted path of what is wrong, in the body that was sent")
    detail: str = Field(description="one sentence: what, where, the limit, the remedy")


class PushResult(Message):
    """What became of pushed rollouts."""

    accepted: int = Field(description="new ones")
    duplicates: int = Field(description="those whose id was there already")
    refused: list[RefusedRollout] = Field(default=[], description="those that were not taken, and why")


class RolloutLimits(Message):
    """What those who read a run's rollouts can read: its student, and its teachers where they read token ids."""

    vocabulary_size: int = Field(ge=1, description="token ids are below it")
    context: int = Field(ge=2, description="tokens of prompt and completion together, at most")

    def flaws(self, rollout: Rollout) -> Iterator[tuple[str, str]]:
        """Field and sentence of what cannot be read: a token id that is none, or too many tokens."""
        for field, ids in (("prompt_ids", rollout.prompt_ids), ("completion_ids", rollout.completion_ids)):
            if (highest := int(ids.max())) >= self.vocabulary_size:
                known = f"those of this run are 0 to {self.vocabulary_size - 1}"
                yield field, f"{highest} is no token id, {known}; encode the text with the student's tokenizer"
        tokens = len(rollout.prompt_ids) + len(rollout.completion_ids)
        if tokens > self.context:
            limit = f"{self.context}, the most that student and teachers of this run read"
            yield "completion_ids", f"with the prompt it has {tokens} tokens, over {limit}; cut it"
