"""The few rollouts of a step that people are shown, and what student and teacher held of each of their tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tutelage.core.inspection import Inspected
from tutelage.core.objective import Objective
from tutelage.trainer.collate import Unit, collated, cut
from tutelage.trainer.marking import Scored
from tutelage.trainer.rewarding import PromptKey, prompt_key
from tutelage.trainer.student import Student
from tutelage_client.spec import RunSpec
from tutelage_client.wire import Inspection, Rollout


class Shown(NamedTuple):
    """Texts that people are shown. inspections: by the id of each, as far as there are"""

    rollouts: Sequence[Rollout]
    inspections: Mapping[str, Inspection]


NOTHING = Shown((), MappingProxyType({}))
SHOWN = 4
# Of each model, before each token.
TOP = 8
# Completion tokens of a step that are inspected: below 160 bytes each in the coordinator's database, and their texts.
MOST_TOKENS = 16_384


def chosen(scored: Iterable[Scored]) -> list[Scored]:
    """Those to show: of different prompts as far as there are, the same ones in every step that has them."""
    seen: Counter[PromptKey] = Counter()
    order: list[tuple[int, bytes, str, Scored]] = []
    for each in sorted(scored, key=lambda each: each.rollout.id):
        prompt = prompt_key(each.rollout)
        order.append((seen[prompt], sha256(prompt[1]).digest(), each.rollout.id, each))
        seen[prompt] += 1
    return [each for *_, each in sorted(order, key=lambda ranked: ranked[:3])[:SHOWN]]


def short_enough(shown: Iterable[Scored]) -> list[Scored]:
    """As many of them, from the first on, as hold no more than MOST_TOKENS together; a longer one is passed over."""
    kept, tokens = [], 0
    for each in shown:
        own = len(each.rollout.completion_ids)
        if tokens + own <= MOST_TOKENS:
            kept.append(each)
            tokens += own
    return kept


def inspect(
    student: Student, spec: RunSpec, objective: Objective, units: Sequence[Unit], shown: Sequence[Scored], learned: int
) -> dict[str, Inspection]:
    """By the id of each rollout in `shown` that is in a unit: its tokens, at the student's weights as they are.

    units: what the step learns from; learned: how many tokens that is
    """
    wanted = {each.key for each in short_enough(shown)}
    concerned = [unit for unit in units if any(each.key in wanted for each in unit)]
    groups = list(cut(concerned, spec.optim.micro_batch_tokens))
    own = (student.pad_id, student.device, student.teacher_heads)
    made: dict[str, Inspection] = {}
    for group in groups:
        is_marked = group[0].scores is not None
        [batch] = collated([group], *own, asks_teacher=is_marked, version=student.step)
        found = student.inspect(batch, objective, TOP)
        for item, rows in _rows(group, batch.rollout_R):
            if item.key in wanted:
                made[item.rollout.id] = _of_rollout(student, item, found, rows, learned)
    return made


def _rows(group: Sequence[Scored], rollout_R: Tensor) -> Iterator[tuple[Scored, slice]]:
    counts = rollout_R.bincount(minlength=len(group)).tolist()
    end = 0
    for item, count in zip(group, counts, strict=True):
        yield item, slice(end, end := end + count)


def _of_rollout(student: Student, item: Scored, found: Inspected, rows: slice, learned: int) -> Inspection:
    arrays: dict[str, Any] = {
        f"{whose}_{name}": array
        for whose, held in (("student", found.student), ("teacher", found.teacher))
        for name, array in (
            ("logprob", _floats(held.logprob_R, rows)),
            ("entropy", _floats(held.entropy_R, rows)),
            ("topk_ids", _ids(held.top_ids_RK, rows)),
            ("topk_logprob", _floats(held.top_logprob_RK, rows)),
        )
        if array is not None
    }
    nothing = np.zeros(rows.stop - rows.start, dtype=np.bool_)
    named = [item.rollout.completion_ids, *(array.ravel() for array in arrays.values() if array.dtype == np.int32)]
    return Inspection(
        start=len(item.rollout.prompt_ids),
        valid=nothing if item.scores is None else item.scores.valid,
        contribution=found.contribution_R[rows].float().cpu().numpy(),
        learned_tokens=learned,
        teacher=item.teacher,
        texts=student.pieces(np.unique(np.concatenate(named)).tolist()),
        **arrays,
    )


def _floats(value: Tensor | None, rows: slice) -> NDArray[np.float32] | None:
    return None if value is None else value[rows].float().cpu().numpy()


def _ids(value: Tensor | None, rows: slice) -> NDArray[np.int32] | None:
    return None if value is None else value[rows].int().cpu().numpy()
