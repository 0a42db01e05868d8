"""A skew of its own for each text (DistiLLM-2, arXiv:2503.07067, by the rule of its released code).

    m = the geometric mean of the text's token probabilities under its writer, less the same under the other model
    a = clip(1 - (1 - a0) m0 / m, 0.01, a0),    m0 the mean m over the texts of the run's first step

Where the two have come nearer on a text than they were, it needs less of the other side. At the first step, which
measures m0, a is a0. The writer is the teacher in skewed forward KL and the student in skewed reverse KL.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tutelage.core.kl import kl, mixture

LEAST = 0.01
AWAY = 1e-5  # added to m, as in the code
# The metric that m is told as, for each divergence that takes such a skew.
GAPS = {"skew_forward_kl": "text_gap_forward", "skew_reverse_kl": "text_gap_reverse"}


def text_gaps(teacher_logp_R: Tensor, student_logp_R: Tensor, rollout_R: Tensor) -> Tensor:
    """Of the text of each row [R]: exp of its mean log q, less exp of its mean log p."""
    return _geometric_mean(teacher_logp_R, rollout_R) - _geometric_mean(student_logp_R, rollout_R)


def _geometric_mean(logp_R: Tensor, rollout_R: Tensor) -> Tensor:
    texts, index_R = rollout_R.unique(return_inverse=True)
    sum_B = logp_R.new_zeros(len(texts)).index_add_(0, index_R, logp_R)
    return (sum_B / torch.bincount(index_R, minlength=len(texts))).exp()[index_R]


def writers_gap(divergence: str, text_gap_R: Tensor) -> Tensor:
    """m of each row's text."""
    return text_gap_R if divergence == "skew_forward_kl" else -text_gap_R


def skews(gap_R: Tensor, first_gap: float, alpha: float) -> Tensor:
    """a of each row's text."""
    return (1 - (1 - alpha) * first_gap / (gap_R + AWAY)).nan_to_num(nan=alpha).clamp(LEAST, alpha)


def skewed(divergence: str, student_logp: Tensor, teacher_logp: Tensor, alpha_R: Tensor) -> Tensor:
    """KL of the writer to alpha writer + (1 - alpha) other [R]."""
    forward = divergence == "skew_forward_kl"
    writer, other = (teacher_logp, student_logp) if forward else (student_logp, teacher_logp)
    return kl(writer, mixture(writer, other, alpha_R[:, None]))
