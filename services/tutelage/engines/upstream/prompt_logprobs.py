"""vLLM's `prompt_logprobs`: for each prompt token a map from id to log-prob, the top k and the token itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from tutelage.engines.upstream.asked import Answer, Asked, Ids, Logprobs, covered_candidates, logprobs_of, top_k_arrays
from tutelage_client.errors import BadScores
from tutelage_client.wire import Signal


def read_prompt_logprobs(rows: Any, asked: Asked, k: int) -> tuple[Ids, Logprobs, Logprobs]:
    """Top-k ids [R, k] and log-probs [R, k] of the scored rows, and the realised tokens' log-probs [R].

    Raises:
        BadScores: another number of rows or entries, or a row without its own token.
    """
    if not isinstance(rows, list) or len(rows) != len(asked.token_ids):
        got = f"{len(rows)} rows" if isinstance(rows, list) else "none"
        raise BadScores(f"prompt_logprobs: {got} for {len(asked.token_ids)} tokens", "length")
    entries = [_row(row, int(own), k) for row, own in zip(rows[asked.start :], asked.scored_ids, strict=True)]
    ids = np.array([[i for i, _ in top] for top, _ in entries], dtype=np.int64)
    logprobs = logprobs_of([[value for _, value in top] for top, _ in entries])
    return ids, logprobs, logprobs_of([own for _, own in entries])


def read_spelling(rows: Any, asked: Asked) -> list[str | None]:
    """The server's own text of each scored token, None where it gives none.

    Raises:
        BadScores: as `read_prompt_logprobs`.
    """
    read_prompt_logprobs(rows, asked, 0)
    pairs = zip(rows[asked.start :], asked.scored_ids, strict=True)
    return [next(entry.get("decoded_token") for key, entry in row.items() if int(key) == own) for row, own in pairs]


def answer_from_top_k(asked: Asked, ids_RK: Ids, logprob_RK: Logprobs, own_R: Logprobs, cached: int = 0) -> Answer:
    """Every signal from the top k and the realised tokens; candidates as far as these cover them."""
    arrays: dict[str, Any] = {}
    if Signal.SAMPLED in asked.signals:
        arrays["sampled_logprob"] = own_R
    if asked.top_k is not None:
        order = np.argsort(-logprob_RK, axis=1, kind="stable")[:, : asked.top_k]
        arrays |= top_k_arrays(np.take_along_axis(ids_RK, order, 1), np.take_along_axis(logprob_RK, order, 1))
    if asked.candidate_ids is not None:
        arrays |= covered_candidates(asked.candidate_ids, ids_RK, logprob_RK, (asked.scored_ids, own_R))
    return Answer(arrays, len(asked.token_ids) - cached, cached)


def _row(row: Any, own_id: int, k: int) -> tuple[list[tuple[int, float]], float]:
    """The k best entries of a row, and the log-prob of its own token, which may be one more."""
    if not isinstance(row, dict):
        raise BadScores("prompt_logprobs has an empty row; the server may have taken it from its prefix cache")
    try:
        values = {int(key): float(entry["logprob"]) for key, entry in row.items()}
    except (KeyError, TypeError, ValueError) as error:
        raise BadScores("prompt_logprobs has an entry without a log-prob") from error
    if own_id not in values:
        raise BadScores(f"prompt_logprobs lacks the token {own_id} itself: the server scored other tokens", "mismatch")
    own = values[own_id]
    if len(values) == k + 1:
        del values[own_id]
    if len(values) != k and k > 0:
        raise BadScores(f"prompt_logprobs has {len(values)} entries a row, asked were {k}", "length")
    return list(values.items())[:k] if k else [], own
