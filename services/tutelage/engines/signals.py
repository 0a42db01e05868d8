"""From logits to what was asked: each chunk of rows is reduced at once, so that [tokens, vocabulary] is never held.

Shapes: N scored tokens of a call, R rows of a chunk, V vocabulary, C candidates, X the width of a state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage_client.wire import ScoreGroup, Signal, TokenScores


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of each of N scored tokens, in the order of groups and completions."""

    groups: Sequence[ScoreGroup]
    signals: frozenset[Signal]
    top_k: int | None

    def target_ids(self) -> NDArray[np.int64]:
        """The token of each row [N]."""
        return np.concatenate([c.token_ids for g in self.groups for c in g.completions]).astype(np.int64)

    def candidate_ids(self) -> NDArray[np.int64] | None:
        """Candidates [N, C], rows of narrower completions padded with -1; None where none are asked for."""
        if Signal.CANDIDATES not in self.signals:
            return None
        rows = [c.candidate_ids for g in self.groups for c in g.completions if c.candidate_ids is not None]
        width = max(part.shape[1] for part in rows)
        padded = [np.pad(part, ((0, 0), (0, width - part.shape[1])), constant_values=-1) for part in rows]
        return np.concatenate(padded).astype(np.int64)


def answer(
    question: Question, states_NX: Tensor, logits: Callable[[Tensor], Tensor], chunk_rows: int
) -> list[TokenScores]:
    """One block a completion, from the states of all its rows in order and the function that turns them into logits.

    The function sees `chunk_rows` rows at a time, and is not called where hidden states alone are asked for. What it
    returns is overwritten.
    """
    device = states_NX.device
    ids_N, ids_NC = question.target_ids(), question.candidate_ids()
    columns = {"hidden": _to_numpy(states_NX)} if Signal.HIDDEN in question.signals else {}
    reduced: list[dict[str, NDArray[Any]]] = []
    for first in range(0, len(ids_N) if question.signals != {Signal.HIDDEN} else 0, chunk_rows):
        rows = slice(first, first + chunk_rows)
        ids_R = torch.from_numpy(ids_N[rows]).to(device)
        ids_RC = None if ids_NC is None else torch.from_numpy(ids_NC[rows]).to(device)
        part = _reduce(logits(states_NX[rows]).float(), ids_R, ids_RC, question)
        reduced.append({name: _to_numpy(column) for name, column in part.items()})
    for name in reduced[0] if reduced else ():
        columns[name] = np.concatenate([part[name] for part in reduced])
    return _blocks(question, columns)


def _reduce(logits_RV: Tensor, ids_R: Tensor, ids_RC: Tensor | None, question: Question) -> dict[str, Tensor]:
    """Columns of a chunk. Only the rows' log-normaliser is needed, except by the entropy, which reuses the tile."""
    lse_R1 = logits_RV.logsumexp(-1, keepdim=True)
    out: dict[str, Tensor] = {}
    if Signal.SAMPLED in question.signals:
        out["sampled_logprob"] = (logits_RV.gather(-1, ids_R[:, None]) - lse_R1)[:, 0]
    if question.top_k is not None:
        top_Rk, out["topk_ids"] = logits_RV.topk(question.top_k)
        out["topk_logprob"] = top_Rk - lse_R1
        out["topk_rest_mass"] = (1 - out["topk_logprob"].exp().sum(-1)).clamp(min=0)
    if ids_RC is not None:
        out["candidate_valid"] = ids_RC >= 0
        logprob_RC = logits_RV.gather(-1, ids_RC.clamp(min=0)) - lse_R1
        out["candidate_logprob"] = logprob_RC.masked_fill(~out["candidate_valid"], torch.nan)
    if Signal.ENTROPY in question.signals:
        p_RV = logits_RV.sub_(lse_R1).exp_()
        out["entropy"] = torch.special.entr(p_RV, out=p_RV).sum(-1)
    return out


def _to_numpy(column: Tensor) -> NDArray[Any]:
    return (column.float() if column.is_floating_point() else column).cpu().numpy()


def _blocks(question: Question, columns: dict[str, NDArray[Any]]) -> list[TokenScores]:
    """Cut the columns of all rows into blocks; each keeps its own number of candidates."""
    blocks: list[TokenScores] = []
    first = 0
    for group in question.groups:
        for completion in group.completions:
            rows = slice(first, first + len(completion.token_ids))
            arrays = {name: column[rows] for name, column in columns.items()}
            if completion.candidate_ids is not None:
                width = completion.candidate_ids.shape[1]
                arrays |= {name: part[:, :width] for name, part in arrays.items() if name.startswith("candidate_")}
            valid = np.ones(len(completion.token_ids), dtype=bool)
            blocks.append(TokenScores.unchecked(len(group.prompt_ids), {"valid": valid} | arrays))
            first = rows.stop
    return blocks
