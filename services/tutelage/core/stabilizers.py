"""What bounds or reweights a signal. There are two clips on two ratios, and neither stands in for the other:

ratio_clip    on p / mu: the text was written by an older student or by another engine
signal_clip   on q / p: the teacher is far from the student
"""

from __future__ import annotations

import torch
from torch import Tensor

from tutelage.core.kl import reverse_kl


def signal_clip(teacher_logp: Tensor, student_logp: Tensor, max_nats: float) -> Tensor:
    """The teacher's log-probabilities, entry by entry within `max_nats` of the student's; not renormalised.

    The missing constant does not reach the gradient of reverse KL; in that of forward KL it weights the whole row.
    """
    centre = student_logp.detach()
    return teacher_logp.clamp(centre - max_nats, centre + max_nats)


def ratio(logp_R: Tensor, behaviour_logprob_R: Tensor) -> Tensor:
    """p / mu of the written token, detached; NaN where no behaviour policy is known."""
    return (logp_R - behaviour_logprob_R).detach().exp()


def ratio_clip(logp_R: Tensor, behaviour_logprob_R: Tensor, minimum: float, maximum: float) -> Tensor:
    """Weights p / mu clipped to [minimum, maximum], detached; 1 where no behaviour policy is known."""
    ratio_R = ratio(logp_R, behaviour_logprob_R)
    return torch.where(ratio_R.isnan(), 1.0, ratio_R.clamp(minimum, maximum))


def freshness(lag_R: Tensor, decay: float) -> Tensor:
    """Weights decay^lag of text that was written `lag` policy versions ago."""
    return decay ** lag_R.double()


def ordinary_tokens(token_ids_R: Tensor, special_ids: frozenset[int]) -> Tensor:
    """True where the token is none of `special_ids`."""
    return ~torch.isin(token_ids_R, token_ids_R.new_tensor(sorted(special_ids)))


def entropy_gate(entropy_R: Tensor, minimum: float, maximum: float) -> Tensor:
    """Weights 1 where the entropy (nats) is above `minimum` and at most `maximum`, else 0 (EOPD, arXiv:2603.07079)."""
    return ((entropy_R > minimum) & (entropy_R <= maximum)).to(entropy_R.dtype)


def reference_kl(student_logp_RV: Tensor, reference_logp_RV: Tensor, coef: float) -> Tensor:
    """coef * KL(p || ref) over the vocabulary: keeps the student near where it was."""
    return coef * reverse_kl(student_logp_RV, reference_logp_RV.detach())
