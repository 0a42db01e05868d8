"""Small exact problems: hidden states are logits (both heads are the identity), so nothing stands between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tutelage.core import kernels
from tutelage.core.batch import OutputHead, TeacherSignals, TokenBatch

Logits = Callable[..., Tensor]
MakeBatch = Callable[..., TokenBatch]


@pytest.fixture(scope="session", autouse=True)
def settled_kernels() -> None:
    kernels.settle()


def random_logits(seed: int, *shape: int, scale: float = 2.0, dtype: torch.dtype = torch.float64) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def signals_of(teacher_logits_RV: Tensor, student_logits_RV: Tensor, token_ids_R: Tensor, k: int) -> TeacherSignals:
    """Every signal that a teacher with these logits would send."""
    logp_RV = teacher_logits_RV.log_softmax(-1)
    top = logp_RV.topk(k, -1)
    candidate_ids_RC = student_logits_RV.topk(k, -1).indices
    size = logp_RV.shape[-1]
    return TeacherSignals(
        valid_R=torch.ones(len(logp_RV), dtype=torch.bool),
        sampled_logprob_R=logp_RV.gather(-1, token_ids_R[:, None]).squeeze(-1),
        topk_ids_RK=top.indices,
        topk_logprob_RK=top.values,
        topk_rest_R=logp_RV.scatter(-1, top.indices, -torch.inf).exp().sum(-1),
        candidate_ids_RC=candidate_ids_RC,
        candidate_logprob_RC=logp_RV.gather(-1, candidate_ids_RC),
        candidate_valid_RC=torch.ones_like(candidate_ids_RC, dtype=torch.bool),
        entropy_R=-(logp_RV.exp() * logp_RV.clamp(min=-1e9)).sum(-1),
        hidden_RH=teacher_logits_RV,
        head=OutputHead(torch.eye(size, dtype=logp_RV.dtype)),
    )


def build_batch(student_logits_RV: Tensor, teacher_logits_RV: Tensor, *, k: int = 3, seed: int = 0) -> TokenBatch:
    """A batch in which everything is there; the student's logits are a leaf that collects the gradient."""
    rows, size = student_logits_RV.shape
    generator = torch.Generator().manual_seed(seed)
    token_ids_R = torch.randint(size, (rows,), generator=generator)
    written_R = student_logits_RV.log_softmax(-1).gather(-1, token_ids_R[:, None]).squeeze(-1)
    noise_R = 0.5 * torch.randn(rows, generator=generator, dtype=student_logits_RV.dtype)
    batch = TokenBatch(
        hidden_RH=student_logits_RV.clone().requires_grad_(),
        head=lambda hidden_RH: hidden_RH,
        token_ids_R=token_ids_R,
        mask_R=torch.ones(rows, dtype=torch.bool),
        behaviour_logprob_R=written_R + noise_R,
        reference_hidden_RH=random_logits(seed + 1000, rows, size, dtype=student_logits_RV.dtype),
        reference_head=lambda hidden_RH: hidden_RH,
    )
    return replace(batch, teacher=signals_of(teacher_logits_RV, student_logits_RV, token_ids_R, k))


@pytest.fixture(scope="session")
def logits() -> Logits:
    return random_logits


@pytest.fixture(scope="session")
def make_batch() -> MakeBatch:
    return build_batch
