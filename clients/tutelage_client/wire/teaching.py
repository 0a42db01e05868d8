"""Messages between a student and a teacher: rollouts, score requests, rewards, generations, teacher descriptions."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from tutelage_client.wire.arrays import Flags, Floats, IdRows, TokenIds
from tutelage_client.wire.scores import TokenScores


class Message(BaseModel):
    """Base of everything on the wire: frozen, unknown keys refused."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", frozen=True)


class Signal(StrEnum):
    """What a teacher can be asked to return for a token."""

    SAMPLED = "sampled"
    TOP_K = "top_k"
    CANDIDATES = "candidates"
    ENTROPY = "entropy"
    HIDDEN = "hidden"


class Completion(Message):
    """Tokens after a prompt; every one of them is scored. candidate_ids [rows, c], -1 pads."""

    token_ids: TokenIds
    candidate_ids: IdRows | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.token_ids.ndim != 1 or len(self.token_ids) == 0:
            raise ValueError("token_ids must hold at least one token to score")
        if self.token_ids.min() < 0:
            raise ValueError("token_ids must not be negative")
        if self.candidate_ids is not None and len(self.candidate_ids) != len(self.token_ids):
            raise ValueError(
                f"candidate_ids has {len(self.candidate_ids)} rows for {len(self.token_ids)} scored tokens; "
                "give one each"
            )
        return self


class ScoreGroup(Message):
    """Completions that share a prompt. A plain sequence is a group of one."""

    prompt_ids: TokenIds
    completions: Annotated[tuple[Completion, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.prompt_ids) == 0:
            raise ValueError("prompt_ids is empty; the first token of a sequence has no score")
        if self.prompt_ids.min() < 0:
            raise ValueError("prompt_ids must not be negative")
        return self

    @property
    def longest(self) -> int:
        """Length in tokens of the longest sequence of this group."""
        return len(self.prompt_ids) + max(len(c.token_ids) for c in self.completions)

    @property
    def scored_tokens(self) -> int:
        return sum(len(c.token_ids) for c in self.completions)


class ScoreSequence(Message):
    """A sequence of which the tokens from `score_start` on are scored."""

    token_ids: TokenIds
    score_start: int = Field(ge=1)
    candidate_ids: IdRows | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.score_start >= len(self.token_ids):
            raise ValueError(
                f"score_start is {self.score_start} but the sequence has {len(self.token_ids)} tokens; "
                "it must leave at least one token to score"
            )
        self.as_group()
        return self

    def as_group(self) -> ScoreGroup:
        prompt_ids, scored_ids = np.split(self.token_ids, [self.score_start])
        completion = Completion(token_ids=scored_ids, candidate_ids=self.candidate_ids)
        return ScoreGroup(prompt_ids=prompt_ids, completions=(completion,))


def _shape(value: Any) -> str:
    keys = value if isinstance(value, dict) else type(value).model_fields
    return "group" if "completions" in keys or "prompt_ids" in keys else "sequence"


Scorable = Annotated[
    Annotated[ScoreSequence, Tag("sequence")] | Annotated[ScoreGroup, Tag("group")], Discriminator(_shape)
]


class ScoreRequest(Message):
    """Score given tokens. `top_k` goes with the signal of that name, candidate ids with `candidates`."""

    sequences: Annotated[tuple[Scorable, ...], Field(min_length=1)]
    signals: Annotated[frozenset[Signal], Field(min_length=1)] = frozenset({Signal.SAMPLED})
    top_k: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (Signal.TOP_K in self.signals) != (self.top_k is not None):
            raise ValueError('top_k (a number) and the signal "top_k" go together; give both or neither')
        has_ids = [c.candidate_ids is not None for group in self.groups() for c in group.completions]
        if Signal.CANDIDATES in self.signals and not all(has_ids):
            raise ValueError('the signal "candidates" needs candidate_ids on every sequence')
        if Signal.CANDIDATES not in self.signals and any(has_ids):
            raise ValueError('candidate_ids are given; add "candidates" to signals or leave them out')
        return self

    def groups(self) -> list[ScoreGroup]:
        """Every item as a group, in order; the replies follow the completions in this order."""
        return [item if isinstance(item, ScoreGroup) else item.as_group() for item in self.sequences]


class Provenance(Message):
    """Who spoke. A silent change of any field in mid-run is refused by the trainer."""

    teacher: str
    model: str
    model_revision: str
    tokenizer_fingerprint: str
    engine: str
    engine_version: str
    dtype: str
    temperature: float = 1.0


class Usage(Message):
    """What a request cost. forward_tokens went through the model, cached_tokens did not have to."""

    scored_tokens: int = 0
    forward_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(**{name: getattr(self, name) + getattr(other, name) for name in Usage.model_fields})


class ScoreReply(Message):
    scores: tuple[TokenScores, ...]
    provenance: Provenance
    usage: Usage


class RewardItem(Message):
    """One completion to grade. `reference` is the known answer where a grader needs one."""

    prompt: str | list[dict[str, Any]]
    completion: str
    reference: str | None = None


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


class Capabilities(Message):
    """What a teacher can do; what it lacks is refused with `capability_missing`, never approximated."""

    signals: frozenset[Signal]
    max_top_k: int
    max_length: int
    vocabulary_size: int
    applies_temperature: bool = False
    exact: bool = True
    generates: bool = True
    eos_ids: tuple[int, ...] = ()


class TeacherInfo(Message):
    name: str
    capabilities: Capabilities
    provenance: Provenance
    probe: dict[str, Any] = {}


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
