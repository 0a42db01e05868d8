"""What a step tells of student and teacher on the text that was learned from, out of what its loss has in hand.

Nothing here is computed a second time over the vocabulary but the top-k of the overlap. Over the full vocabulary all of
it is exact. Elsewhere it follows from what the teacher sent: its own top-k, asked for this alone where the loss has no
use for it, its entropy, its log-probabilities of the written tokens. Without a teacher the student is measured alone.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tutelage.core.batch import TeacherSignals, TokenBatch, at_tokens
from tutelage.core.kl import entropy, forward_kl, reverse_kl
from tutelage.core.metrics import Partial, over
from tutelage.core.objective import Objective
from tutelage.core.quantiles import ByPosition, Overall
from tutelage.core.stabilizers import ratio
from tutelage.core.support import SUPPORTS, Aligned, with_tail

# The most probable tokens of each whose overlap is taken over the full vocabulary, as in arXiv:2604.13016.
TOP = 16


class Overlap(NamedTuple):
    """Of the teacher's most probable tokens [R]: the share that is among as many of the student's, both masses on
    that share, and both masses on all of them."""

    share_R: Tensor
    student_shared_mass_R: Tensor
    teacher_shared_mass_R: Tensor
    student_mass_R: Tensor
    teacher_mass_R: Tensor


class Observed(NamedTuple):
    """Of each row [R], without gradient and before any clip: both distributions over the whole vocabulary."""

    student_logprob_R: Tensor
    teacher_logprob_R: Tensor
    reverse_kl_R: Tensor
    forward_kl_R: Tensor
    student_entropy_R: Tensor
    teacher_entropy_R: Tensor
    overlap_R: Tensor
    student_overlap_mass_R: Tensor
    teacher_overlap_mass_R: Tensor
    student_top_mass_R: Tensor
    teacher_top_mass_R: Tensor


def overlap(student_logp_RV: Tensor, teacher_ids_RK: Tensor, teacher_logp_RK: Tensor) -> Overlap:
    """How far the student's top k are the teacher's top k; ids of -1 pad, tokens without probability count as none."""
    k = min(teacher_ids_RK.shape[-1], student_logp_RV.shape[-1])
    last_R1 = student_logp_RV.topk(k, sorted=True).values[:, -1:]
    student_logp_RK = at_tokens(student_logp_RV, teacher_ids_RK)
    p_RK, q_RK = student_logp_RK.exp(), teacher_logp_RK.exp().masked_fill(teacher_ids_RK < 0, 0.0)
    both_RK = (student_logp_RK >= last_R1) & (p_RK > 0) & (q_RK > 0)
    share_R = both_RK.to(p_RK.dtype).sum(-1) / (q_RK > 0).sum(-1)
    return Overlap(share_R, (p_RK * both_RK).sum(-1), (q_RK * both_RK).sum(-1), p_RK.sum(-1), q_RK.sum(-1))


def overlap_of_all(student_logp_RV: Tensor, teacher_logp_RV: Tensor) -> Overlap:
    """That of the `TOP` most probable tokens of each."""
    top = teacher_logp_RV.topk(min(TOP, teacher_logp_RV.shape[-1]))
    return overlap(student_logp_RV, top.indices, top.values)


@torch.no_grad()
def of_chunk(
    objective: Objective, rows: TokenBatch, student_logp_RV: Tensor, logp_R: Tensor, whole: Aligned | None
) -> dict[str, Partial]:
    """What the rows tell; whole: student and teacher over the full vocabulary, where the objective compares them so."""
    if whole is not None:
        return of_whole(_seen(whole, logp_R, rows.token_ids_R), objective, rows)
    entropy_R = entropy(student_logp_RV)
    observed: dict[str, Partial] = {"student_entropy": over(entropy_R)}
    observed |= of_behaviour(logp_R, rows.behaviour_logprob_R, objective.ratio_clip)
    teacher = rows.teacher
    if teacher is None:
        return observed
    if teacher.sampled_logprob_R is not None:
        log_ratio_R = teacher.sampled_logprob_R - logp_R
        observed |= of_written(log_ratio_R, objective, rows) | of_reverse_kl(-log_ratio_R)
    if teacher.topk_ids_RK is not None and teacher.topk_logprob_RK is not None:
        ids_RK = known(teacher.topk_ids_RK, student_logp_RV.shape[-1])
        found = overlap(student_logp_RV, ids_RK, teacher.topk_logprob_RK)
        observed |= of_overlap(_where(SUPPORTS["teacher_top_k"].usable(teacher), found))
    for support in named_sets(objective, teacher):
        observed |= of_set(student_logp_RV, support, teacher)
    if teacher.entropy_R is not None:
        gap_R = (teacher.entropy_R - entropy_R).abs()
        observed |= {"teacher_entropy": over(teacher.entropy_R), "entropy_gap": over(gap_R)}
    return observed


def named_sets(objective: Objective, teacher: TeacherSignals) -> list[str]:
    """The supports of the objective that are sets of tokens; without one the teacher's own top-k, where it was sent."""
    compared = [term.objective.comparison for term in objective.parts]
    sets = [name for name in compared if name is not None and SUPPORTS[name].chosen is not None]
    return sets or (["teacher_top_k"] if teacher.topk_ids_RK is not None else [])


def known(ids_RK: Tensor, size: int) -> Tensor:
    """The ids as they are, -1 where they lie outside the student's vocabulary: a padded head may name such."""
    return ids_RK.masked_fill(ids_RK >= size, -1)


def _where(usable_R: Tensor, found: Overlap) -> Overlap:
    return Overlap(*(value_R.masked_fill(~usable_R, torch.nan) for value_R in found))


def _seen(aligned: Aligned, logp_R: Tensor, token_ids_R: Tensor) -> Observed:
    return Observed(
        logp_R,
        at_tokens(aligned.teacher_logp_RS, token_ids_R[:, None]).squeeze(-1),
        reverse_kl(*aligned),
        forward_kl(*aligned),
        entropy(aligned.student_logp_RS),
        entropy(aligned.teacher_logp_RS),
        *overlap_of_all(*aligned),
    )


def of_whole(seen: Observed, objective: Objective, rows: TokenBatch) -> dict[str, Partial]:
    """Exact values, where both full distributions are there."""
    observed = of_written(seen.teacher_logprob_R - seen.student_logprob_R, objective, rows)
    observed |= of_behaviour(seen.student_logprob_R, rows.behaviour_logprob_R, objective.ratio_clip)
    observed |= of_reverse_kl(seen.reverse_kl_R) | {
        "forward_kl": over(seen.forward_kl_R),
        "student_entropy": over(seen.student_entropy_R),
        "teacher_entropy": over(seen.teacher_entropy_R),
        "entropy_gap": over((seen.teacher_entropy_R - seen.student_entropy_R).abs()),
    }
    shared = (seen.overlap_R, seen.student_overlap_mass_R, seen.teacher_overlap_mass_R)
    return observed | of_overlap(Overlap(*shared, seen.student_top_mass_R, seen.teacher_top_mass_R))


def of_overlap(shared: Overlap) -> dict[str, Partial]:
    return {
        "top_k_overlap": over(shared.share_R),
        "student_overlap_mass": over(shared.student_shared_mass_R),
        "teacher_overlap_mass": over(shared.teacher_shared_mass_R),
        "student_support_mass": over(shared.student_mass_R),
        "teacher_support_mass": over(shared.teacher_mass_R),
    }


def of_set(student_logp_RV: Tensor, support: str, teacher: TeacherSignals) -> dict[str, Partial]:
    """How much of each lies on the set, and how far their entropies are apart with one bucket for all other tokens."""
    choose = SUPPORTS[support].chosen
    assert choose is not None
    ids_RS, teacher_logp_RS, rest_R = choose(teacher)
    ids_RS = known(ids_RS, student_logp_RV.shape[-1])
    usable_R = SUPPORTS[support].usable(teacher) & (ids_RS[:, 0] >= 0)
    ids_RS = ids_RS.where(usable_R[:, None], 0)  # any token: what comes of these rows is not told
    coarse = with_tail(student_logp_RV, ids_RS, teacher_logp_RS, rest_R)
    gap_R = (entropy(coarse.teacher_logp_RS) - entropy(coarse.student_logp_RS)).abs()
    teacher_logp_RS = teacher_logp_RS.masked_fill(ids_RS < 0, -torch.inf)
    named_R = {
        "student_support_mass": at_tokens(student_logp_RV, ids_RS).exp().sum(-1),
        "teacher_support_mass": teacher_logp_RS.exp().sum(-1),
        "entropy_gap": gap_R,
    }
    return {name: over(value_R.masked_fill(~usable_R, torch.nan)) for name, value_R in named_R.items()}


def of_written(log_ratio_R: Tensor, objective: Objective, rows: TokenBatch) -> dict[str, Partial]:
    """From log q(y) - log p(y) of the written tokens.

    signal_clip_fraction is the share of written tokens whose own log-ratio is beyond the clip: on the student's own
    text its mass on clipped entries, for any support.
    """
    named: dict[str, Partial] = {"log_ratio": over(log_ratio_R)}
    if rows.position_R is not None:
        named["log_ratio_p"] = ByPosition.of(log_ratio_R, rows.position_R)
    if objective.signal_clip is not None:
        beyond_R = (log_ratio_R.abs() > objective.signal_clip).double()
        named["signal_clip_fraction"] = over(beyond_R.masked_fill(log_ratio_R.isnan(), torch.nan))
    return named


def of_reverse_kl(reverse_kl_R: Tensor) -> dict[str, Partial]:
    """Mean and quantiles of the same values: exact ones, or log p(y) - log q(y) of the written tokens, whose mean is
    unbiased on the student's own text."""
    return {"reverse_kl": over(reverse_kl_R), "reverse_kl_": Overall.of(reverse_kl_R)}


def of_behaviour(
    logp_R: Tensor, behaviour_logprob_R: Tensor | None, bounds: tuple[float, float] | None
) -> dict[str, Partial]:
    """From p / mu of the written tokens that have a behaviour policy."""
    if behaviour_logprob_R is None:
        return {}
    ratio_R = ratio(logp_R, behaviour_logprob_R).double()
    absent_R, mean = ratio_R.isnan(), over(ratio_R)
    named: dict[str, Partial] = {
        "ratio": mean,
        "ratio_max": (ratio_R.masked_fill(absent_R, 0.0).max(), mean[1]),
        "ratio_ess": over(ratio_R.square()),
    }
    if bounds is not None:
        outside_R = ((ratio_R < bounds[0]) | (ratio_R > bounds[1])).double()
        named["ratio_clip_fraction"] = over(outside_R.masked_fill(absent_R, torch.nan))
    return named
