"""The objective through `fused` and through recomputed chunks is one objective."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tutelage.core.batch import OutputHead
from tutelage.core.credit import Credit
from tutelage.core.loss import fusible, loss
from tutelage.core.metrics import values
from tutelage.core.objective import Objective
from tutelage.core.pulls import PULLS

SETTINGS = [(kind, {}) for kind in PULLS]
SETTINGS += [("jsd", {"beta": beta}) for beta in (0.0, 1.0)]
SETTINGS += [(kind, {"alpha": alpha}) for kind in ("skew_forward_kl", "skew_reverse_kl") for alpha in (0.0, 0.5)]


@pytest.mark.parametrize(("kind", "params"), SETTINGS)
@pytest.mark.parametrize("forbids", [False, True], ids=["", "teacher-forbids-a-token"])
def test_the_objective_is_the_same_through_tiles_and_through_recomputed_chunks(
    logits, make_batch, kind, params, forbids
):
    """Loss, gradients and every metric; two paths, chosen by what the head is."""
    batch = make_batch(logits(1, 300, 13, dtype=torch.float32), logits(2, 300, 13, dtype=torch.float32))
    batch.mask_R[3:6], batch.teacher.valid_R[7] = False, False
    if forbids:
        bias = torch.zeros(13)
        bias[4] = -torch.inf
        batch = replace(batch, teacher=replace(batch.teacher, head=replace(batch.teacher.head, bias_V=bias)))
    hidden = batch.hidden_RH.detach().requires_grad_()
    head = OutputHead(logits(3, 13, 13, scale=1.0, dtype=torch.float32).requires_grad_(), softcap=20.0)
    objective = Objective("divergence", divergence=kind, **params)
    outcomes = []
    for used, fused in ((head, True), (lambda hidden_RH: head(hidden_RH), False)):
        given_batch = replace(batch, hidden_RH=hidden, head=used)
        assert fusible(given_batch, objective) is fused
        total, measured = loss(given_batch, objective, chunk_rows=100)
        outcomes.append((total.detach(), torch.autograd.grad(total, [hidden, head.weight_VH]), values(measured)))
    (total, gradients, measured), (expected, expected_gradients, expected_measured) = outcomes
    assert torch.allclose(total, expected, rtol=1e-5)
    for one, other in zip(gradients, expected_gradients, strict=True):
        assert (one - other).norm() <= 1e-4 * other.norm()
    assert measured == pytest.approx(expected_measured, rel=1e-5)
    assert (measured["infinite_fraction"] > 0) == (expected == 0)


@pytest.mark.parametrize(
    "option",
    [
        {"signal_clip": 1.0},
        {"ratio_clip": (0.5, 2.0)},
        {"reference_coef": 0.1},
        {"support": "teacher_top_k"},
        {"entropy_gate": ("teacher", 0.5, 9.0)},
        {"kind": "policy_gradient", "credit": Credit(baseline=True)},
    ],
)
def test_what_reads_or_weights_the_logits_is_not_fused(logits, make_batch, option):
    batch = make_batch(logits(1, 5, 13), logits(2, 5, 13))
    identity = OutputHead(torch.eye(13, dtype=torch.float64))
    assert fusible(replace(batch, head=identity), Objective("divergence"))
    objective = Objective(**({"kind": "divergence"} | option))
    assert not fusible(replace(batch, head=identity), objective)
    plain, headed = (loss(x, objective) for x in (batch, replace(batch, head=identity)))
    assert torch.allclose(plain[0], headed[0], rtol=1e-12)
    assert values(plain[1]) == pytest.approx(values(headed[1]))


def test_rows_of_nothing_have_no_loss_on_the_fused_path(logits, make_batch):
    batch = replace(make_batch(logits(1, 4, 6), logits(2, 4, 6)), head=OutputHead(torch.eye(6, dtype=torch.float64)))
    batch.mask_R[:] = False
    total, measured = loss(batch, Objective("divergence"))
    total.backward()
    assert (total.item(), values(measured)) == (0, {"tokens": 0})
    assert batch.hidden_RH.grad is not None and batch.hidden_RH.grad.abs().max() == 0
