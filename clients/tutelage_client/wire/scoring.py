"""What is to be scored, and the answer. A plain sequence and a group behind one prompt are the same thing."""

from __future__ import annotations

from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, model_validator

from tutelage_client.wire.arrays import IdRows, TokenIds, repeat_in_a_row
from tutelage_client.wire.message import Message
from tutelage_client.wire.scores import TokenScores
from tutelage_client.wire.teachers import Provenance, Signal, Usage
from tutelage_client.wire.tensors import EntryDtype

# Reading a sequence takes far longer than its bytes say, and nobody else is answered meanwhile.
MOST_SEQUENCES = 4096


def too_many(count: int) -> str:
    """The refusal of a request with so many sequences and completions."""
    return f"the request has {count} sequences and completions, at most {MOST_SEQUENCES} go in one; send it in parts"


def _each_once(ids: NDArray[np.int32]) -> NDArray[np.int32]:
    if ids.ndim != 2:
        raise ValueError(f"the shape is {list(ids.shape)}; give a row of ids for each scored token")
    if (found := repeat_in_a_row(ids)) is not None:
        raise ValueError("row {} repeats the id {}; name each id of a row once".format(*found))
    return ids


class Completion(Message):
    """Tokens after a prompt; every one of them is scored."""

    token_ids: TokenIds = Field(description="at least one")
    candidate_ids: Annotated[IdRows, AfterValidator(_each_once)] | None = Field(
        default=None,
        description="ids to score at each token, one row each, all of one length, no id twice in a row; -1 pads",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.token_ids) == 0:
            raise ValueError("token_ids must hold at least one token to score")
        if self.candidate_ids is not None and len(self.candidate_ids) != len(self.token_ids):
            raise ValueError(
                f"candidate_ids has {len(self.candidate_ids)} rows for {len(self.token_ids)} scored tokens; "
                "give one each"
            )
        return self


class ScoreGroup(Message):
    """Completions that share a prompt. A plain sequence is a group of one."""

    prompt_ids: TokenIds = Field(description="encoded once for all of them; not scored")
    completions: Annotated[tuple[Completion, ...], Field(min_length=1)] = Field(description="one score block each")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.prompt_ids) == 0:
            raise ValueError("prompt_ids is empty; the first token of a sequence has no score")
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

    token_ids: TokenIds = Field(description="the whole sequence")
    score_start: int = Field(ge=1, description="first position that is scored; the first token has no score")
    candidate_ids: IdRows | None = Field(default=None, description="as of a completion, a row for each scored token")
    _group: ScoreGroup = PrivateAttr()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.score_start >= len(self.token_ids):
            raise ValueError(
                f"score_start is {self.score_start} but the sequence has {len(self.token_ids)} tokens; "
                "it must leave at least one token to score"
            )
        prompt_ids, scored_ids = np.split(self.token_ids, [self.score_start])
        completion = Completion(token_ids=scored_ids, candidate_ids=self.candidate_ids)
        self._group = ScoreGroup(prompt_ids=prompt_ids, completions=(completion,))
        return self

    def as_group(self) -> ScoreGroup:
        """The same as a group of one, by whose rules it was checked."""
        return self._group


def _by_shape(value: Any) -> Any:
    """The member that the keys speak of, so that an error names its fields and not the member."""
    if isinstance(value, ScoreSequence | ScoreGroup):
        return value
    if not isinstance(value, dict):
        raise ValueError("give a sequence (token_ids, score_start) or a group (prompt_ids, completions)")  # noqa: TRY004
    return (ScoreGroup if value.keys() & ScoreGroup.model_fields.keys() else ScoreSequence).model_validate(value)


Scorable = Annotated[ScoreSequence | ScoreGroup, BeforeValidator(_by_shape)]


class ScoreRequest(Message):
    """Score given tokens."""

    sequences: Annotated[tuple[Scorable, ...], Field(min_length=1)] = Field(description="sequences or groups, mixed")
    signals: Annotated[frozenset[Signal], Field(min_length=1)] = Field(
        default=frozenset({Signal.SAMPLED}), description="what is wanted for each token"
    )
    top_k: int | None = Field(default=None, ge=1, description="how many; goes with the signal of that name")
    own_batch: bool = Field(
        default=False,
        description="scored in engine calls of its own, from no cache: what else is asked cannot change a bit of it",
    )
    entry_dtype: EntryDtype = Field(
        default="float32",
        description="how top-k and candidate log-probs and hidden states travel in a safetensors reply; "
        "what a row has one of stays float32",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (Signal.TOP_K in self.signals) != (self.top_k is not None):
            raise ValueError('top_k (a number) and the signal "top_k" go together; give both or neither')
        has_ids = [c.candidate_ids is not None for group in self.groups() for c in group.completions]
        if len(has_ids) > MOST_SEQUENCES:
            raise ValueError(too_many(len(has_ids)))
        if Signal.CANDIDATES in self.signals and not all(has_ids):
            raise ValueError('the signal "candidates" needs candidate_ids on every sequence')
        if Signal.CANDIDATES not in self.signals and any(has_ids):
            raise ValueError('candidate_ids are given; add "candidates" to signals or leave them out')
        return self

    @classmethod
    def of(cls, token_ids: Any, *, start: int = 1, top_k: int | None = None, entropy: bool = False) -> Self:
        """One sequence [n], of which the tokens from `start` on are scored.

        top_k: also the most probable tokens; entropy: also that of the whole vocabulary
        Raises:
            ValidationError: it is no such request.
        """
        signals = {Signal.SAMPLED} | ({Signal.TOP_K} if top_k else set()) | ({Signal.ENTROPY} if entropy else set())
        sequence = ScoreSequence.model_validate({"token_ids": token_ids, "score_start": start})
        return cls(sequences=(sequence,), signals=frozenset(signals), top_k=top_k)

    def groups(self) -> list[ScoreGroup]:
        """Every item as a group, in order; the replies follow the completions in this order."""
        return [item if isinstance(item, ScoreGroup) else item.as_group() for item in self.sequences]


class ScoreReply(Message):
    """One score block a sequence, and one a completion of a group."""

    scores: tuple[TokenScores, ...] = Field(description="in the order of the request")
    provenance: Provenance = Field(description="who scored")
    usage: Usage = Field(description="what it cost")
