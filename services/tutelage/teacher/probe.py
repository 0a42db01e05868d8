"""A teacher's test of itself: its signals must agree with each other on a fixed sequence before it takes work."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.teacher.batcher import Batcher
from tutelage_client.errors import BadScores
from tutelage_client.wire import Capabilities, Completion, ScoreGroup, Signal, TokenScores

_TOKENS = 8
_TOP_K = 8
_AGREE = 0.01  # of probability: the same logits in two calls; half-precision kernels may differ a little
_MASS = 0.01


async def probe(batcher: Batcher, known: Capabilities) -> dict[str, Any]:
    """What was measured: `worst_gap` in probability between two signals on the same token, `worst_mass` from 1.

    Raises:
        BadScores: the signals contradict each other, or an answer is no score at all. EngineFailed: there was none.
    """
    found: dict[str, Any] = {"tokens": _TOKENS}
    token_ids = np.arange(_TOKENS + 1, dtype=np.int32) % known.vocabulary_size
    prompt_ids, scored_ids = token_ids[:1], token_ids[1:]
    first = known.signals & {Signal.SAMPLED, Signal.TOP_K}
    if not first:
        return found
    top_k = min(_TOP_K, known.max_top_k) if Signal.TOP_K in first else None
    block = await _ask(batcher, prompt_ids, Completion(token_ids=scored_ids), first, top_k)
    if block.topk_logprob is not None and block.topk_rest_mass is not None:
        mass = np.exp(block.topk_logprob).sum(1) + block.topk_rest_mass
        found["worst_mass"] = _within(
            np.abs(mass - 1), _MASS, "the top-k probabilities and the rest do not add up to 1"
        )
    if Signal.CANDIDATES in known.signals:
        ids, expected = _candidates(scored_ids, block)
        again = await _ask(
            batcher,
            prompt_ids,
            Completion(token_ids=scored_ids, candidate_ids=ids),
            frozenset({Signal.CANDIDATES}),
            None,
        )
        assert again.candidate_logprob is not None
        gap = np.abs(np.exp(again.candidate_logprob) - np.exp(expected))
        found["worst_gap"] = _within(gap, _AGREE, "candidates disagree with sampled or top-k on the same tokens")
    found["worst_gap"] = max(found.get("worst_gap", 0.0), _sampled_against_top_k(scored_ids, block))
    return found


async def _ask(
    batcher: Batcher,
    prompt_ids: NDArray[np.int32],
    completion: Completion,
    signals: frozenset[Signal],
    top_k: int | None,
) -> TokenScores:
    groups = [ScoreGroup(prompt_ids=prompt_ids, completions=(completion,))]
    blocks, _ = await batcher.score(groups, signals, top_k)
    return blocks[0]


def _candidates(scored_ids: NDArray[np.int32], block: TokenScores) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Ids to ask about again, and the log-probs that they had in the first answer; both [rows, c]."""
    ids = [scored_ids[:, None]] if block.sampled_logprob is not None else []
    logprob = [block.sampled_logprob[:, None]] if block.sampled_logprob is not None else []
    if block.topk_ids is not None and block.topk_logprob is not None:
        ids.append(block.topk_ids)
        logprob.append(block.topk_logprob)
    return np.concatenate(ids, axis=1), np.concatenate(logprob, axis=1)


def _sampled_against_top_k(scored_ids: NDArray[np.int32], block: TokenScores) -> float:
    if block.topk_ids is None or block.topk_logprob is None or block.sampled_logprob is None:
        return 0.0
    same = block.topk_ids == scored_ids[:, None]
    gap = np.abs(np.exp(block.topk_logprob) - np.exp(block.sampled_logprob)[:, None])[same]
    return _within(gap, _AGREE, "top-k disagrees with sampled on the same tokens")


def _within(gaps: NDArray[Any], limit: float, complaint: str) -> float:
    worst = float(gaps.max(initial=0.0))
    if not worst <= limit:
        raise BadScores(f"the start-up probe failed: {complaint} (off by {worst:.3g}, allowed {limit})")
    return worst
