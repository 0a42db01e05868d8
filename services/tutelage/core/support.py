"""Supports: over which tokens student and teacher are compared.

A support turns the student's log-probabilities [R, V] and the teacher's signals into two aligned log-distributions
[R, S], and says beforehand which rows have what it takes. For a top-k, `rest` says what becomes of all other tokens:

    tail          one bucket for all of them: exact on the coarsened vocabulary, a lower bound of the full divergence
    renormalise   left out, both sides renormalised on the set
    truncate      the teacher is cut to the set and renormalised; the student keeps all of its mass
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from tutelage.core.batch import TeacherSignals, TokenBatch, at_tokens, log_probabilities
from tutelage.core.kl import floored

Value = TypeVar("Value")


# Two answers of a teacher in half precision, joined in one set, may be more than 1 by less than this.
MASS_SLACK = 0.1


class Aligned(NamedTuple):
    """Student and teacher over the same tokens; gradients flow through the student's side only."""

    student_logp_RS: Tensor
    teacher_logp_RS: Tensor


class Chosen(NamedTuple):
    """A set of tokens [R, S], id -1 pads; the teacher's log-probabilities there, and its probability outside [R]."""

    ids_RS: Tensor
    teacher_logp_RS: Tensor
    rest_R: Tensor | None


class Support(NamedTuple):
    """usable: which rows can be aligned [R]; align: (student_logp_RV, batch of usable rows, rest) -> Aligned.

    chosen: the set of tokens, where it is one that teacher or student named
    """

    usable: Callable[[TeacherSignals], Tensor]
    align: Callable[[Tensor, TokenBatch, str], Aligned]
    chosen: Callable[[TeacherSignals], Chosen] | None = None


def signals(batch: TokenBatch) -> TeacherSignals:
    """The teacher's part of a batch that needs one."""
    return needed(batch.teacher, "teacher signals")


def needed(value: Value | None, what: str) -> Value:
    """`value`, which the objective cannot do without.

    Raises:
        ValueError: it was not given.
    """
    if value is None:
        raise ValueError(f"the objective needs {what}, which the batch lacks; ask the teacher for them")
    return value


def full_rows(teacher: TeacherSignals) -> Tensor:
    """Scored rows whose hidden states are finite."""
    return teacher.valid_R & needed(teacher.hidden_RH, "hidden states").isfinite().all(-1)


def full(student_logp_RV: Tensor, batch: TokenBatch, _rest: str) -> Aligned:
    """The whole vocabulary, rebuilt from the teacher's hidden states.

    Raises:
        ValueError: the two heads differ in size.
    """
    teacher = signals(batch)
    with torch.no_grad():
        logits_RV = needed(teacher.head, "the output head")(needed(teacher.hidden_RH, "hidden states"))
    teacher_logp_RV = log_probabilities(logits_RV, batch.vocabulary_size)
    student_size, teacher_size = student_logp_RV.shape[-1], teacher_logp_RV.shape[-1]
    if student_size != teacher_size:
        raise ValueError(
            f"the student's head has {student_size} entries and the teacher's {teacher_size}; "
            "if they share a tokenizer, give vocabulary_size, the number of tokens before the padding"
        )
    return Aligned(student_logp_RV, teacher_logp_RV)


def sampled_rows(teacher: TeacherSignals) -> Tensor:
    """Scored rows whose written token has a log-probability."""
    return teacher.valid_R & ~needed(teacher.sampled_logprob_R, "sampled log-probabilities").isnan()


def sampled(student_logp_RV: Tensor, batch: TokenBatch, _rest: str) -> Aligned:
    """The written token alone, S = 1: for estimators and advantages, not a distribution."""
    teacher_logp_R = needed(signals(batch).sampled_logprob_R, "sampled log-probabilities")
    return Aligned(at_tokens(student_logp_RV, batch.token_ids_R[:, None]), teacher_logp_R[:, None])


def teacher_top_k_rows(teacher: TeacherSignals) -> Tensor:
    """Scored rows whose top-k has no gap."""
    ids_RK, logprob_RK = needed(teacher.topk_ids_RK, "top-k"), needed(teacher.topk_logprob_RK, "top-k")
    usable_R = teacher.valid_R & _usable_set(ids_RK, logprob_RK)
    return usable_R if teacher.topk_rest_R is None else usable_R & ~teacher.topk_rest_R.isnan()


def teacher_top_k(teacher: TeacherSignals) -> Chosen:
    """The teacher's most probable tokens."""
    return Chosen(needed(teacher.topk_ids_RK, "top-k"), needed(teacher.topk_logprob_RK, "top-k"), teacher.topk_rest_R)


def student_top_k_rows(teacher: TeacherSignals) -> Tensor:
    """Rows whose candidates the teacher scored without exception; with a gap neither rest would be right."""
    ids_RC = needed(teacher.candidate_ids_RC, "candidates")
    covered_RC = needed(teacher.candidate_valid_RC, "candidates") | (ids_RC < 0)
    return (
        teacher.valid_R & covered_RC.all(-1) & _usable_set(ids_RC, needed(teacher.candidate_logprob_RC, "candidates"))
    )


def student_top_k(teacher: TeacherSignals) -> Chosen:
    """The candidates that the student named when it asked."""
    ids_RC = needed(teacher.candidate_ids_RC, "candidates")
    return Chosen(ids_RC, needed(teacher.candidate_logprob_RC, "candidates"), None)


def union_rows(teacher: TeacherSignals) -> Tensor:
    """Rows that have both sets whole."""
    return teacher_top_k_rows(teacher) & student_top_k_rows(teacher)


def union_top_k(teacher: TeacherSignals) -> Chosen:
    """The teacher's most probable tokens and the student's candidates; what both name stands in it once."""
    ids_RK, ids_RC = needed(teacher.topk_ids_RK, "top-k"), needed(teacher.candidate_ids_RC, "candidates")
    known_RC = (ids_RC[:, :, None] == ids_RK[:, None, :]).any(-1)
    added_RC = needed(teacher.candidate_logprob_RC, "candidates").masked_fill(known_RC | (ids_RC < 0), -torch.inf)
    rest_R = None if teacher.topk_rest_R is None else teacher.topk_rest_R - added_RC.exp().sum(-1)
    ids_RS = torch.cat([ids_RK, ids_RC.masked_fill(known_RC, -1)], -1)
    teacher_logp_RS = torch.cat([needed(teacher.topk_logprob_RK, "top-k"), added_RC], -1)
    return Chosen(ids_RS, teacher_logp_RS, rest_R)


def _usable_set(ids_RS: Tensor, logprob_RS: Tensor) -> Tensor:
    """A first id that is no padding, no NaN where there is an id, and some probability on the set."""
    holes_RS, pad_RS = logprob_RS.isnan(), ids_RS < 0
    return ~pad_RS[:, 0] & ~(holes_RS & ~pad_RS).any(-1) & ((logprob_RS > -torch.inf) & ~pad_RS).any(-1)


def with_tail(student_logp_RV: Tensor, ids_RS: Tensor, teacher_logp_RS: Tensor, rest_R: Tensor | None) -> Aligned:
    """The set and one bucket for everything outside it."""
    student_logp_RS = at_tokens(student_logp_RV, ids_RS)
    teacher_logp_RS = teacher_logp_RS.masked_fill(ids_RS < 0, -torch.inf)
    everything_R = (ids_RS >= 0).sum(-1) >= student_logp_RV.shape[-1]
    student_tail_R = _outside(student_logp_RV, ids_RS)
    teacher_tail_R = _rest_logprob(teacher_logp_RS, rest_R).masked_fill(everything_R, -torch.inf)
    return Aligned(_append(student_logp_RS, student_tail_R), _append(teacher_logp_RS, teacher_tail_R))


def renormalised(student_logp_RV: Tensor, ids_RS: Tensor, teacher_logp_RS: Tensor, _rest_R: Tensor | None) -> Aligned:
    """The set alone, each side divided by its mass on it."""
    teacher_logp_RS = teacher_logp_RS.masked_fill(ids_RS < 0, -torch.inf)
    return Aligned(_normalise(at_tokens(student_logp_RV, ids_RS)), _normalise(teacher_logp_RS))


def truncated(student_logp_RV: Tensor, ids_RS: Tensor, teacher_logp_RS: Tensor, _rest_R: Tensor | None) -> Aligned:
    """The set and a bucket in which the student has its mass outside and the teacher none.

    KL(q || p) of it is sum_S q^ log(q^ / p), q^ the teacher renormalised on S and p as it is (EOPD, arXiv:2603.07079).
    """
    teacher_logp_RS = _normalise(teacher_logp_RS.masked_fill(ids_RS < 0, -torch.inf))
    nothing_R = teacher_logp_RS.new_full((len(ids_RS),), -torch.inf)
    student_logp_RS = _append(at_tokens(student_logp_RV, ids_RS), _outside(student_logp_RV, ids_RS))
    return Aligned(student_logp_RS, _append(teacher_logp_RS, nothing_R))


RESTS = {"tail": with_tail, "renormalise": renormalised, "truncate": truncated}


def on_set(usable: Callable[[TeacherSignals], Tensor], chosen: Callable[[TeacherSignals], Chosen]) -> Support:
    """The support of a set of tokens."""

    def align(student_logp_RV: Tensor, batch: TokenBatch, rest: str) -> Aligned:
        return RESTS[rest](student_logp_RV, *chosen(signals(batch)))

    return Support(usable, align, chosen)


SUPPORTS = {
    "full": Support(full_rows, full),
    "teacher_top_k": on_set(teacher_top_k_rows, teacher_top_k),
    "student_top_k": on_set(student_top_k_rows, student_top_k),
    "union_top_k": on_set(union_rows, union_top_k),
    "sampled": Support(sampled_rows, sampled),
}


def check_set(name: str, batch: TokenBatch) -> None:
    """Refuse a set on which the teacher's numbers are no probabilities of different tokens. Of rows that are usable.

    Raises:
        ValueError: a token that is there twice, or more than all of the probability, and in which row of them.
    """
    choose = SUPPORTS[name].chosen
    if choose is None:
        return
    chosen = choose(signals(batch))
    ids_RS = chosen.ids_RS.sort(-1).values
    twice_RS = (ids_RS[:, 1:] == ids_RS[:, :-1]) & (ids_RS[:, 1:] >= 0)
    if bool(twice_RS.any()):
        row, column = twice_RS.nonzero()[0].tolist()
        raise ValueError(
            f"{name} names the token {int(ids_RS[row, column])} twice in row {row} of those that are learned from; "
            "give each token of a set once"
        )
    mass_R = chosen.teacher_logp_RS.masked_fill(chosen.ids_RS < 0, -torch.inf).exp().sum(-1)
    if bool((mass_R > 1 + MASS_SLACK).any()):
        row = int(mass_R.argmax())
        raise ValueError(
            f"the teacher's probabilities on {name} add up to {float(mass_R[row]):.4g} in row {row} of those that are "
            "learned from; give log-probabilities of the whole vocabulary's softmax"
        )


def _outside(logp_RV: Tensor, ids_RS: Tensor) -> Tensor:
    """log of the student's mass outside the ids [R]: summed over the others, because 1 - sum loses a small rest."""
    zero = torch.finfo(logp_RV.dtype).min / 4
    ids_RS = torch.where(ids_RS < 0, ids_RS[:, :1], ids_RS)  # padding repeats an id that is taken out anyway
    tail_R = floored(logp_RV).scatter(-1, ids_RS.long(), zero).logsumexp(-1)
    return tail_R.masked_fill(tail_R < zero / 2, -torch.inf)


def _rest_logprob(teacher_logp_RS: Tensor, rest_R: Tensor | None) -> Tensor:
    """log of the teacher's mass outside the set [R]; a rest below the resolution of the numbers counts as that."""
    mass_R = -teacher_logp_RS.logsumexp(-1).expm1() if rest_R is None else rest_R
    return mass_R.clamp(min=torch.finfo(mass_R.dtype).eps).log()


def _normalise(logp_RS: Tensor) -> Tensor:
    return floored(logp_RS).log_softmax(-1).masked_fill(logp_RS == -torch.inf, -torch.inf)


def _append(logp_RS: Tensor, bucket_R: Tensor) -> Tensor:
    return torch.cat([logp_RS, bucket_R[:, None].to(logp_RS.dtype)], -1)
