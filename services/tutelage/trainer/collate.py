"""Scored rollouts to tensors: the only place where lists become a padded batch.

A completion token at position t of its sequence is predicted by the hidden state at t - 1; that is the one place where
this shift stands. Where the objective asks a teacher, a rollout without scores is left out whole; a row that a teacher
did not score stays, with `valid` False and NaN, and the core takes nothing from it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.core.batch import OutputHead, TeacherSignals
from tutelage.trainer.marking import Scored
from tutelage.trainer.rewarding import PromptKey, prompt_key
from tutelage.trainer.writing import lag
from tutelage_client.errors import BadScores
from tutelage_client.wire import Rollout

# Rollouts that stand in one batch whatever its size.
Unit = tuple[Scored, ...]
# What a loss can use of a score block, by the core's names.
SIGNALS = {
    "valid": "valid_R",
    "sampled_logprob": "sampled_logprob_R",
    "topk_ids": "topk_ids_RK",
    "topk_logprob": "topk_logprob_RK",
    "topk_rest_mass": "topk_rest_R",
    "candidate_logprob": "candidate_logprob_RC",
    "candidate_valid": "candidate_valid_RC",
    "entropy": "entropy_R",
    "hidden": "hidden_RH",
}


@dataclass(frozen=True, slots=True, eq=False)
class MicroBatch:
    """B sequences, right-padded to T, and the R rows that are completion tokens, flattened in order.

    rollout_R, position_R: which of the B sequences a row is of, and its place in the completion
    lag_R: policy versions since the rollout was written; None where nobody asked
    outcome_R: advantage by the reward of the rollout, the same for all its rows; None where there are no rewards
    marked_by: the teacher that was asked about all of them
    predictor_R: index into [B * T] of the hidden state that predicts the row's token
    """

    input_ids_BT: Tensor
    attention_mask_BT: Tensor
    predictor_R: Tensor
    token_ids_R: Tensor
    mask_R: Tensor
    rollout_R: Tensor
    position_R: Tensor
    behaviour_logprob_R: Tensor
    lag_R: Tensor | None
    outcome_R: Tensor | None
    teacher: TeacherSignals | None
    marked_by: str | None


def micro_batches(
    scored: Sequence[Scored],
    max_tokens: int,
    pad_id: int,
    device: torch.device,
    heads: Mapping[str | None, OutputHead],
    *,
    asks_teacher: bool,
    in_pairs: bool = False,
    version: int | None = None,
) -> Iterator[MicroBatch]:
    """Rollouts of one teacher sorted by length, in batches of at most `max_tokens` padded tokens, then the next one's.

    A rollout that is longer than that goes alone. `heads`: the teachers' output heads, where they are needed.
    `in_pairs`: two by two, text of another before the student's to the same prompt; what has no partner is left out.
    `version`: of the student that learns, where lags are wanted.
    """
    units = learnable(scored, asks_teacher=asks_teacher, in_pairs=in_pairs)
    return collated(cut(units, max_tokens), pad_id, device, heads, asks_teacher=asks_teacher, version=version)


def collated(
    batches: Iterable[Sequence[Scored]],
    pad_id: int,
    device: torch.device,
    heads: Mapping[str | None, OutputHead],
    *,
    asks_teacher: bool,
    version: int | None = None,
) -> Iterator[MicroBatch]:
    """Each as tensors when its turn comes; all rollouts of one are of one teacher."""
    for batch in batches:
        head = heads.get(batch[0].teacher)
        yield collate(batch, pad_id, device, head, asks_teacher=asks_teacher, version=version)


def learnable(scored: Iterable[Scored], *, asks_teacher: bool, in_pairs: bool) -> list[Unit]:
    """What a step learns from of its rollouts: those with scores, where any are asked for, and a valid reward."""
    usable = [s for s in scored if s.scores is not None or not asks_teacher]
    usable = [s for s in usable if s.advantage is None or not math.isnan(s.advantage)]
    return _pairs(usable) if in_pairs else [(s,) for s in usable]


def by_length(unit: Unit) -> tuple[str, int, str]:
    """The order in which units are cut into batches."""
    return unit[0].teacher or "", _longest(unit), unit[0].rollout.id


def cut(units: Iterable[Unit], max_tokens: int) -> Iterator[list[Scored]]:
    """All of them in batches of one teacher, by length."""
    for _, own in groupby(sorted(units, key=by_length), key=lambda unit: unit[0].teacher):
        yield from _cut(own, max_tokens)


def pop_full(singles: list[Unit], max_tokens: int) -> list[Scored] | None:
    """Takes out the first batch to which nothing of its length can be added, if there is one.

    singles: of one rollout each, in the order of `cut`
    """
    start = 0
    for batch in cut(singles, max_tokens):
        if (len(batch) + 1) * _length(batch[-1].rollout) > max_tokens:
            del singles[start : start + len(batch)]
            return batch
        start += len(batch)
    return None


def _cut(ordered: Iterable[Unit], max_tokens: int) -> Iterator[list[Scored]]:
    batch: list[Scored] = []
    for unit in ordered:
        if batch and (len(batch) + len(unit)) * _longest(unit) > max_tokens:
            yield batch
            batch = []
        batch.extend(unit)
    if batch:
        yield batch


def _pairs(scored: Iterable[Scored]) -> list[Unit]:
    by_prompt: dict[PromptKey, tuple[list[Scored], list[Scored]]] = {}
    for item in scored:
        by_prompt.setdefault(prompt_key(item.rollout), ([], []))[item.rollout.source == "student"].append(item)
    return [pair for others, own in by_prompt.values() for pair in zip(others, own, strict=False)]


def _longest(unit: Unit) -> int:
    return max(_length(item.rollout) for item in unit)


def collate(
    scored: Sequence[Scored],
    pad_id: int,
    device: torch.device,
    head: OutputHead | None,
    *,
    asks_teacher: bool,
    version: int | None = None,
) -> MicroBatch:
    """One micro-batch of these rollouts on `device`, all of one teacher, whose output head is `head`."""
    rollouts = [s.rollout for s in scored]
    width = max(_length(r) for r in rollouts)
    ids = np.full((len(rollouts), width), pad_id, dtype=np.int64)
    attention = np.zeros((len(rollouts), width), dtype=np.int64)
    predictors = []
    for row, rollout in enumerate(rollouts):
        start, end = len(rollout.prompt_ids), _length(rollout)
        ids[row, :start] = rollout.prompt_ids
        ids[row, start:end] = rollout.completion_ids
        attention[row, :end] = 1
        predictors.append(row * width + np.arange(start - 1, end - 1))
    return MicroBatch(
        input_ids_BT=torch.from_numpy(ids).to(device),
        attention_mask_BT=torch.from_numpy(attention).to(device),
        predictor_R=_joined(predictors, device),
        token_ids_R=_joined([r.completion_ids.astype(np.int64) for r in rollouts], device),
        mask_R=_joined([r.mask for r in rollouts], device),
        rollout_R=_joined([np.full(len(r.completion_ids), row) for row, r in enumerate(rollouts)], device),
        position_R=_joined([np.arange(len(r.completion_ids)) for r in rollouts], device),
        behaviour_logprob_R=_joined([_behaviour(r) for r in rollouts], device),
        lag_R=None if version is None else _lags(rollouts, version, device),
        outcome_R=_outcomes(scored, device),
        teacher=signals(scored, device, head) if asks_teacher else None,
        marked_by=scored[0].teacher,
    )


def signals(scored: Sequence[Scored], device: torch.device, head: OutputHead | None) -> TeacherSignals:
    """The teacher's arrays of all rows; every rollout has scores.

    Raises:
        BadScores: two rollouts carry other arrays, or arrays of other widths, so that rows would not line up.
    """
    columns = [_columns(s) for s in scored]
    layouts = [{name: array.shape[1:] for name, array in own.items()} for own in columns]
    for item, layout in zip(scored, layouts, strict=True):
        if layout != layouts[0]:
            raise BadScores(
                f"the scores of rollout {item.rollout.id} hold {_told(layout)}, those of {scored[0].rollout.id} "
                f"{_told(layouts[0])}; one batch needs the same arrays of every rollout"
            )
    return TeacherSignals(
        **{name: _joined([own[name] for own in columns], device) for name in layouts[0]},  # pyright: ignore[reportArgumentType]
        head=head,
    )


def _columns(item: Scored) -> dict[str, NDArray[Any]]:
    """The arrays of one rollout that a loss can use."""
    assert item.scores is not None
    own = {SIGNALS[name]: array for name, array in item.scores.arrays().items() if name in SIGNALS}
    return own if item.candidate_ids is None else own | {"candidate_ids_RC": item.candidate_ids}


def _told(layout: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(name + "".join(f"[{width}]" for width in shape) for name, shape in sorted(layout.items()))


def _joined(parts: Sequence[NDArray[Any]], device: torch.device) -> Tensor:
    return torch.from_numpy(np.concatenate(parts)).to(device)


def _outcomes(scored: Sequence[Scored], device: torch.device) -> Tensor | None:
    advantages = [np.full(len(s.rollout.completion_ids), s.advantage) for s in scored if s.advantage is not None]
    return _joined(advantages, device) if advantages else None


def _lags(rollouts: Sequence[Rollout], version: int, device: torch.device) -> Tensor:
    return _joined([np.full(len(r.completion_ids), lag(r, version)) for r in rollouts], device)


def _behaviour(rollout: Rollout) -> NDArray[np.float32]:
    if rollout.behaviour_logprob is None:
        return np.full(len(rollout.completion_ids), np.nan, dtype=np.float32)
    return rollout.behaviour_logprob


def _length(rollout: Rollout) -> int:
    return len(rollout.prompt_ids) + len(rollout.completion_ids)
