"""One sequence put to an upstream, and its answer as the arrays of `TokenScores`.

Shapes: R scored rows, C candidates, K top-k entries.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage_client.errors import BadScores
from tutelage_client.wire import ScoreGroup, Signal, TokenScores

Ids = NDArray[np.int64]
Logprobs = NDArray[np.float64]

# What vLLM writes for -inf, as JSON has none.
MINUS_INFINITY = -9999.0


@dataclass(frozen=True, slots=True)
class Asked:
    """Row r speaks of `token_ids[start + r]`. candidate_ids: [R, C], -1 pads; temperature: only the probe changes it"""

    token_ids: list[int]
    start: int
    signals: frozenset[Signal]
    top_k: int | None = None
    candidate_ids: Ids | None = None
    temperature: float = 1.0

    @property
    def rows(self) -> int:
        return len(self.token_ids) - self.start

    @property
    def scored_ids(self) -> Ids:
        return np.array(self.token_ids[self.start :], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Answer:
    """arrays: those of `TokenScores` less `valid`; forward_tokens, cached_tokens: what the server did and spared"""

    arrays: dict[str, NDArray[Any]]
    forward_tokens: int
    cached_tokens: int = 0

    def block(self, asked: Asked) -> TokenScores:
        """The score block.

        Raises:
            pydantic.ValidationError: something in it is no score.
        """
        return TokenScores.model_validate(
            {"start": asked.start, "valid": np.ones(asked.rows, dtype=bool)} | self.arrays
        )


def asked_of(group: ScoreGroup, signals: frozenset[Signal], top_k: int | None) -> Iterator[Asked]:
    """One question for each completion."""
    prompt = group.prompt_ids.tolist()
    for completion in group.completions:
        ids = None if completion.candidate_ids is None else completion.candidate_ids.astype(np.int64)
        yield Asked([*prompt, *completion.token_ids.tolist()], len(prompt), signals, top_k, ids)


def top_k_arrays(ids_RK: Ids, logprob_RK: Logprobs) -> dict[str, NDArray[Any]]:
    """Entries in any order as the top-k arrays, descending."""
    order = np.argsort(-logprob_RK, axis=1, kind="stable")
    logprob = np.take_along_axis(logprob_RK, order, 1)
    rest = np.clip(1 - np.exp(logprob).sum(1), 0, 1)
    return {"topk_ids": np.take_along_axis(ids_RK, order, 1), "topk_logprob": logprob, "topk_rest_mass": rest}


def covered_candidates(
    candidate_ids_RC: Ids, ids_RK: Ids, logprob_RK: Logprobs, own: tuple[Ids, Logprobs] | None = None
) -> dict[str, NDArray[Any]]:
    """Candidates as far as the top k covers them; `own` adds the realised tokens [R] and their log-probs.

    A candidate outside is not valid, and the row's k-th log-prob bounds it from above.
    """
    bound_R = logprob_RK.min(axis=1)
    if own is not None:
        ids_RK = np.concatenate([ids_RK, own[0][:, None]], axis=1)
        logprob_RK = np.concatenate([logprob_RK, own[1][:, None]], axis=1)
    logprob_RC = np.full(candidate_ids_RC.shape, np.nan)
    for row, (wanted, ids, logprobs) in enumerate(zip(candidate_ids_RC, ids_RK, logprob_RK, strict=True)):
        order = np.argsort(ids, kind="stable")
        place = np.minimum(np.searchsorted(ids[order], wanted), len(ids) - 1)
        found = ids[order][place] == wanted
        logprob_RC[row, found] = logprobs[order][place][found]
    valid_RC = ~np.isnan(logprob_RC)
    uncovered_R = (~valid_RC & (candidate_ids_RC >= 0)).any(axis=1)
    return {
        "candidate_logprob": logprob_RC,
        "candidate_valid": valid_RC,
        "candidate_upper_bound": np.where(uncovered_R, bound_R, np.nan),
    }


def given_candidates(candidate_ids_RC: Ids, logprob_RC: Logprobs) -> dict[str, NDArray[Any]]:
    """Candidates of which each has its score."""
    covered = candidate_ids_RC >= 0
    return {"candidate_logprob": np.where(covered, logprob_RC, np.nan), "candidate_valid": covered}


def logprobs_of(values: Sequence[Any] | NDArray[Any]) -> Logprobs:
    """Log-probs of an upstream as numbers. What stands for -inf becomes it.

    Raises:
        BadScores: a missing one, NaN, or no number at all.
    """
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise BadScores("the upstream's log-probs are no table of numbers") from error
    if np.isnan(array).any():
        raise BadScores("the upstream left out a log-prob", "nan")
    return np.where(array <= MINUS_INFINITY, -np.inf, array)
