"""What both ways to vLLM share, over HTTP and in process: from what it is asked at once to the answer of a sequence.

Shapes: R scored rows, X ids of one call, K top-k entries.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import numpy as np

from tutelage.engines.upstream.asked import Answer, Asked, Ids, Logprobs, given_candidates, top_k_arrays
from tutelage.engines.upstream.prompt_logprobs import answer_from_top_k
from tutelage_client.wire import Signal

MAX_CELLS = 1 << 20  # scores of one call; more candidates are asked for in several
LOGIT_BYTES = 1 << 32  # float32, of all tokens that are scored at a time; their log-softmax may take as much again
# A model's generation config may hold other defaults; what is asked for is always said.
UNCHANGED: dict[str, Any] = {
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
TopK = tuple[Ids, Logprobs, Logprobs]  # ids [R, K], their log-probs [R, K], the realised tokens' log-probs [R]
AskTopK = Callable[[Asked, int], Awaitable[TopK]]
# The log-probs [R, X] of the ids [R, X], and the top k if a k is given.
AskIds = Callable[[Asked, Ids, int | None], Awaitable[tuple[Logprobs, TopK | None]]]


def tokens_at_once(vocabulary_size: int) -> int:
    """Tokens that a server with the memory of most has room to score, beside what it measured for itself."""
    return max(1, LOGIT_BYTES // (4 * vocabulary_size))


async def score_by_top_k(asked: Asked, max_logprobs: int, ask: AskTopK) -> Answer:
    """Candidates as far as the largest top k covers them."""
    k = max_logprobs if asked.candidate_ids is not None else asked.top_k or 0
    return answer_from_top_k(asked, *await ask(asked, k))


async def score_by_ids(asked: Asked, max_logprobs: int, ask: AskIds) -> Answer:
    """Every candidate; the token itself is one more id, in the first column."""
    columns = asked.scored_ids[:, None]
    if asked.candidate_ids is not None:
        columns = np.concatenate([columns, asked.candidate_ids], axis=1)
    parts = list(_parts(columns, max_logprobs))
    answers = [await ask(asked, part, asked.top_k if i == 0 else None) for i, part in enumerate(parts)]
    logprobs = np.concatenate([scores for scores, _ in answers], axis=1)
    arrays: dict[str, Any] = {}
    if Signal.SAMPLED in asked.signals:
        arrays["sampled_logprob"] = logprobs[:, 0]
    if asked.candidate_ids is not None:
        arrays |= given_candidates(asked.candidate_ids, logprobs[:, 1:])
    if (top := answers[0][1]) is not None:
        arrays |= top_k_arrays(top[0], top[1])
    return Answer(arrays, len(asked.token_ids) * len(parts))


def _parts(columns: Ids, max_logprobs: int) -> Iterator[Ids]:
    """Columns that one call takes."""
    width = max(1, min(max_logprobs, MAX_CELLS // len(columns)))
    for first in range(0, columns.shape[1], width):
        yield columns[:, first : first + width]
