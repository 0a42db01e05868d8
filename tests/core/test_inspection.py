"""What is told of each token: its part of the loss, and what student and teacher held before it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tutelage.core.batch import OutputHead
from tutelage.core.credit import Credit
from tutelage.core.inspection import inspected
from tutelage.core.loss import contributions, fusible, loss
from tutelage.core.metrics import values
from tutelage.core.objective import Objective
from tutelage.core.terms import Term, Where

ROWS, SIZE, K = 13, 7, 3
FULL = Objective(kind="divergence", divergence="reverse_kl", support="full")
SAMPLED = Objective(kind="divergence", divergence="reverse_kl", support="sampled")
OBJECTIVES = {
    "fused": FULL,
    "clipped": replace(FULL, signal_clip=1.0),
    "teacher_top_k": Objective(kind="divergence", divergence="forward_kl", support="teacher_top_k"),
    "sampled": SAMPLED,
    "weighted": replace(SAMPLED, ratio_clip=(0.5, 1.5)),
    "anchored": replace(SAMPLED, reference_coef=0.3),
    "return": Objective(kind="policy_gradient", credit=Credit(discount=0.9, steps=None)),
    "penalty": Objective(kind="constant_penalty"),
    "supervised": Objective(kind="supervised"),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_contributions_of_the_tokens_add_up_to_the_loss(name: str, logits, make_batch) -> None:
    batch = make_batch(logits(1, ROWS, SIZE), logits(2, ROWS, SIZE), k=K)
    head = OutputHead(torch.eye(SIZE, dtype=torch.float64))  # with which a plain divergence is fused
    batch = replace(batch, head=head, mask_R=torch.arange(ROWS) % 5 != 0, rollout_R=torch.arange(ROWS) // 5)
    assert fusible(batch, OBJECTIVES[name]) == (name == "fused")
    total, metrics = loss(batch, OBJECTIVES[name])
    own_R = contributions(batch, OBJECTIVES[name], chunk_rows=4)
    assert own_R.isnan().tolist() == (~batch.mask_R).tolist()
    assert int((~own_R.isnan()).sum()) == values(metrics)["tokens"]
    torch.testing.assert_close(own_R.nansum(), total.detach())


def test_an_infinite_row_adds_nothing_and_is_no_unknown(logits, make_batch) -> None:
    batch = make_batch(logits(1, ROWS, SIZE), logits(2, ROWS, SIZE), k=K)
    forbidden_R = batch.teacher.sampled_logprob_R.clone()
    forbidden_R[2] = -torch.inf
    batch = replace(batch, teacher=replace(batch.teacher, sampled_logprob_R=forbidden_R))
    assert float(contributions(batch, SAMPLED)[2]) == 0


def test_a_term_on_some_rows_adds_to_those_alone(logits, make_batch) -> None:
    batch = make_batch(logits(1, ROWS, SIZE), logits(2, ROWS, SIZE), k=K)
    some = Term(SAMPLED, 2.0, Where(student_entropy_above=1.5))
    own_R = contributions(batch, Objective(kind="sum", terms=(some,)))
    logp_RV = batch.hidden_RH.detach().log_softmax(-1)
    inside_R = -(logp_RV.exp() * logp_RV).sum(-1) > 1.5
    assert 0 < int(inside_R.sum()) < ROWS
    assert (own_R != 0).tolist() == inside_R.tolist()


def test_from_hidden_states_both_models_are_told_exactly(logits, make_batch) -> None:
    student_RV, teacher_RV = logits(1, ROWS, SIZE), logits(2, ROWS, SIZE)
    batch = make_batch(student_RV, teacher_RV, k=K)
    found = inspected(batch, FULL, 2, chunk_rows=5)
    for held, logits_RV in ((found.student, student_RV), (found.teacher, teacher_RV)):
        logp_RV = logits_RV.log_softmax(-1)
        top = logp_RV.topk(2)
        torch.testing.assert_close(held.logprob_R, logp_RV.gather(-1, batch.token_ids_R[:, None]).squeeze(-1))
        torch.testing.assert_close(held.entropy_R, -(logp_RV.exp() * logp_RV).sum(-1))
        torch.testing.assert_close(held.top_logprob_RK, top.values)
        assert held.top_ids_RK is not None and held.top_ids_RK.tolist() == top.indices.tolist()


def test_elsewhere_the_teacher_is_told_as_far_as_it_answered(logits, make_batch) -> None:
    batch = make_batch(logits(1, ROWS, SIZE), logits(2, ROWS, SIZE), k=K)
    valid_R = torch.arange(ROWS) != 3
    signals = replace(batch.teacher, hidden_RH=None, head=None, valid_R=valid_R, entropy_R=None)
    found = inspected(replace(batch, teacher=signals), SAMPLED, 2, chunk_rows=5).teacher
    assert found.entropy_R is None
    assert found.logprob_R is not None and found.top_ids_RK is not None and found.top_logprob_RK is not None
    assert found.logprob_R[valid_R].tolist() == signals.sampled_logprob_R[valid_R].tolist()
    assert found.top_ids_RK[valid_R].tolist() == signals.topk_ids_RK[valid_R, :2].tolist()
    assert found.logprob_R[3].isnan() and found.top_logprob_RK[3].isnan().all()
    assert found.top_ids_RK[3].tolist() == [-1, -1]


def test_without_a_teacher_nothing_is_told_of_one(logits, make_batch) -> None:
    batch = replace(make_batch(logits(1, ROWS, SIZE), logits(2, ROWS, SIZE)), teacher=None)
    found = inspected(batch, OBJECTIVES["supervised"], 2)
    assert set(found.teacher) == {None}
    assert found.student.logprob_R is not None
    torch.testing.assert_close(found.contribution_R, -found.student.logprob_R)
