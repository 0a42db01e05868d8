"""A question whose answer is known from the start: who answers it otherwise later, or elsewhere, is another model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from tutelage.engines.agreement import disagreement
from tutelage_client.errors import BadScores
from tutelage_client.wire import Capabilities, Completion, ScoreGroup, Signal, TokenScores, Usage

_TOKENS = 8
_TOP_K = 8
_EVEN_NATS = 0.01

# Log-probs of the known tokens, and of the most probable one at each place; None is -inf, as in every reply.
KnownAnswer = Sequence[float | None]


class Scores(Protocol):
    """An engine, or who puts questions to one."""

    async def score(
        self, groups: Sequence[ScoreGroup], signals: frozenset[Signal], top_k: int | None
    ) -> tuple[list[TokenScores], Usage]: ...


def known_group(known: Capabilities) -> ScoreGroup:
    """A short sequence that any model with token ids scores.

    It begins as vocabularies do, jumps to where nothing is expected, and ends with the ids that end a text, within the
    model's length.
    """
    assert known.vocabulary_size is not None
    v = known.vocabulary_size
    jumps = [v // 2, v // 4, 3 * v // 4]
    ids = np.array([*range(_TOKENS + 1 - len(jumps)), *jumps], dtype=np.int32)[-known.max_length :] % v
    ends = np.array(known.eos_ids[:2], dtype=np.int32)[: len(ids) - 1]
    if len(ends):
        ids[-len(ends) :] = ends
    return ScoreGroup(prompt_ids=ids[:1], completions=(Completion(token_ids=ids[1:]),))


async def ask_known(asked: Scores, known: Capabilities) -> TokenScores | None:
    """What is said of the known sequence now; None where nothing is scored by token.

    Raises:
        BadScores: the same is said of every token. TutelageError: there was no answer.
    """
    signals = known.signals & {Signal.SAMPLED, Signal.TOP_K}
    if not signals:
        return None
    top_k = min(_TOP_K, known.max_top_k) if Signal.TOP_K in signals else None
    (block,), _ = await asked.score([known_group(known)], signals, top_k)
    _check_not_uniform(block, known)
    return block


def known_answer(block: TokenScores) -> list[float | None]:
    """To be compared later, and shown to people."""
    best = None if block.topk_logprob is None else block.topk_logprob[:, 0]
    values = np.concatenate([a for a in (block.sampled_logprob, best) if a is not None])
    return [round(float(v), 4) if np.isfinite(v) else None for v in values]


def changed(before: KnownAnswer, now: KnownAnswer, dtype: str) -> str | None:
    """Why these are no answers of one model, None if they can be. dtype: of the model"""
    if len(before) != len(now):
        return f"{len(now)} scores came instead of {len(before)}"
    one, other = (np.array([-np.inf if value is None else value for value in answer]) for answer in (before, now))
    return disagreement(one, other, dtype)


def _check_not_uniform(block: TokenScores, known: Capabilities) -> None:
    """A model whose weights did not arrive, or are gone, says the same of every token: -ln V."""
    values = np.concatenate([a.ravel() for a in (block.sampled_logprob, block.topk_logprob) if a is not None])
    if known.vocabulary_size != 1 and values.size > 1 and values.max() - values.min() < _EVEN_NATS:
        raise BadScores("every token has the same log-prob, as of a model without its weights")
