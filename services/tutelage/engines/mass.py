"""Whether log-probs are those of a distribution. A server's may be logits, or be without a term of the normaliser."""

from __future__ import annotations

import numpy as np

from tutelage.engines.known import Scores, known_group
from tutelage_client.errors import BadScores
from tutelage_client.wire import Capabilities, Completion, ScoreGroup, Signal, TokenScores

_SLACK = 0.01
_SLACK_OF_CALLS = 0.1  # where each part of a sum is of a call of its own, in half precision perhaps
_MOST_CALLS = 1024


def mass_of_top_k(block: TokenScores, vocabulary_size: int) -> float:
    """The distance from 1 of the top k and the rest, at the worst row; 0 where there is no top k.

    The V - k other tokens have at most as much each as the k-th one. So in any distribution the top k and V - k times
    its last entry are 1 or more, which a lack shows where the rest is what a server's own top k leaves.

    Raises:
        BadScores: there is more than 1, or less.
    """
    if block.topk_logprob is None or block.topk_rest_mass is None:
        return 0.0
    p_RK = np.exp(block.topk_logprob.astype(np.float64))
    worst = float(np.abs(p_RK.sum(1) + block.topk_rest_mass - 1).max())
    if not worst <= _SLACK:
        raise BadScores(f"the top-k probabilities and the rest do not add up to 1 (off by {worst:.3g})")
    k = p_RK.shape[1]
    most = float((p_RK.sum(1) + (vocabulary_size - k) * p_RK[:, -1]).min())
    if not most >= 1 - _SLACK:
        raise BadScores(
            f"the log-probs are not normalised: the {k} most probable of {vocabulary_size} tokens leave room for a sum "
            f"of {most:.3g} at most; the upstream must give log-probabilities, no logits"
        )
    return worst


async def mass_of_all(asked: Scores, known: Capabilities) -> float | None:
    """The distance from 1 of one row's probabilities over the whole vocabulary.

    None where not every token can be asked about, or only in more than 1,024 calls of the width `max_top_k`.

    Raises:
        BadScores: they do not add up to 1. TutelageError: there was no answer.
    """
    groups = _every_token(known) if Signal.CANDIDATES in known.signals else []
    if not 0 < len(groups) <= _MOST_CALLS:
        return None
    blocks, _ = await asked.score(groups, frozenset({Signal.CANDIDATES}), None)
    arrays = [block.arrays() for block in blocks]
    if not all(array["candidate_valid"].all() for array in arrays):
        return None
    total = sum(float(np.exp(array["candidate_logprob"].astype(np.float64)).sum()) for array in arrays)
    if not abs(total - 1) <= _SLACK_OF_CALLS:
        raise BadScores(
            f"the log-probs are not normalised: the probabilities of all {known.vocabulary_size} tokens add up to "
            f"{total:.3g}, not to 1; the upstream must give log-probabilities, no logits"
        )
    return abs(total - 1)


def _every_token(known: Capabilities) -> list[ScoreGroup]:
    """The first scored token of the known sequence again and again, each time with other candidates."""
    assert known.vocabulary_size is not None
    group = known_group(known)
    scored_ids = group.completions[0].token_ids[:1]
    # A call names the scored token too. Who does not promise each candidate may give all of one row at once.
    width = max(1, known.max_top_k - 1) if known.covers_candidates else known.vocabulary_size
    ids = np.arange(known.vocabulary_size, dtype=np.int32)
    parts = [ids[None, first : first + width] for first in range(0, len(ids), width)]
    return [
        ScoreGroup(prompt_ids=group.prompt_ids, completions=(Completion(token_ids=scored_ids, candidate_ids=part),))
        for part in parts
    ]
