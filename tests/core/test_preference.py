"""A preference between two texts: its gradient is autograd's, and a pair is whole or not learned from."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tutelage.core.batch import OutputHead, TeacherSignals, TokenBatch
from tutelage.core.loss import learned_rows, loss
from tutelage.core.metrics import values
from tutelage.core.objective import Objective
from tutelage.core.preference import preferred
from tutelage.core.terms import Term, Where

ROLLOUTS = torch.tensor([0, 0, 0, 1, 1, 2, 3, 3, 3, 3])
PREFERENCE = Objective(kind="preference", preference_beta=0.7)


def batch(seed: int = 0, **changes: Any) -> TokenBatch:
    """Ten tokens of two pairs over a vocabulary of five."""
    draw = torch.Generator().manual_seed(seed)
    logits_RV = 2 * torch.randn(10, 5, generator=draw, dtype=torch.float64)
    teacher_R = (2 * torch.randn(10, 5, generator=draw, dtype=torch.float64)).log_softmax(-1)[:, 0]
    teacher = TeacherSignals(valid_R=torch.ones(10, dtype=torch.bool), sampled_logprob_R=teacher_R)
    whole = TokenBatch(
        hidden_RH=logits_RV.requires_grad_(),
        head=OutputHead(torch.eye(5, dtype=torch.float64)),
        token_ids_R=torch.zeros(10, dtype=torch.long),
        mask_R=torch.ones(10, dtype=torch.bool),
        rollout_R=ROLLOUTS,
        teacher=teacher,
    )
    return replace(whole, **changes)


def by_hand(log_ratio_R: Tensor, beta: float) -> Tensor:
    """The sum over tokens of the loss of their pair, by autograd's own way."""
    total = log_ratio_R.new_zeros(())
    for pair in ROLLOUTS.unique() // 2:
        better, other = (log_ratio_R[2 * pair + side == ROLLOUTS] for side in (0, 1))
        own = -torch.sigmoid(beta * (better.mean() - other.mean())).log()
        total = total + own * (len(better) + len(other)) / 2  # each pair comes once for each of its texts
    return total


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), beta=st.floats(0.01, 5))
def test_value_and_gradient_are_those_of_the_formula(seed: int, beta: float) -> None:
    rows = batch(seed)
    total, measured = loss(rows, Objective(kind="preference", preference_beta=beta), chunk_rows=3)
    assert rows.teacher is not None
    assert rows.teacher.sampled_logprob_R is not None
    expected = by_hand(rows.hidden_RH.log_softmax(-1)[:, 0] - rows.teacher.sampled_logprob_R, beta)
    torch.testing.assert_close(total, expected)
    for mine, other in zip(*(torch.autograd.grad(each, rows.hidden_RH) for each in (total, expected)), strict=True):
        torch.testing.assert_close(mine, other)
    assert values(measured)["loss"] == pytest.approx(expected.item() / 10)


def test_a_student_that_is_the_teacher_has_no_preference() -> None:
    found = preferred(torch.zeros(10, dtype=torch.float64), ROLLOUTS, beta=2.0)
    torch.testing.assert_close(found.loss_R, torch.full((10,), math.log(2), dtype=torch.float64))
    assert (found.advantage_R > 0).tolist() == (ROLLOUTS % 2 == 0).tolist()


@pytest.mark.parametrize(("row", "kept"), [(5, 5), (0, 9)], ids=["all of one", "one of many"])
def test_a_text_may_be_masked_in_part_but_a_pair_needs_both(row: int, kept: int) -> None:
    mask_R = torch.ones(10, dtype=torch.bool)
    mask_R[row] = False
    assert int(learned_rows(batch(mask_R=mask_R), PREFERENCE).sum()) == kept


def test_a_token_that_was_not_scored_takes_its_pair_with_it() -> None:
    valid_R = torch.ones(10, dtype=torch.bool)
    valid_R[4] = False
    rows = batch()
    assert rows.teacher is not None
    found = learned_rows(replace(rows, teacher=replace(rows.teacher, valid_R=valid_R)), PREFERENCE)
    assert found.tolist() == (ROLLOUTS >= 2).tolist()


def test_text_that_the_teacher_forbids_is_counted_and_moves_nothing() -> None:
    """Of the student: an infinite loss. Of the data: nothing is left to learn."""
    rows = batch()
    assert rows.teacher is not None
    assert rows.teacher.sampled_logprob_R is not None
    for row, fraction in ((4, 0.5), (1, 0.0)):
        forbidden_R = rows.teacher.sampled_logprob_R.clone()
        forbidden_R[row] = -torch.inf
        changed = replace(rows, teacher=replace(rows.teacher, sampled_logprob_R=forbidden_R))
        total, measured = loss(changed, PREFERENCE)
        gradient_RV = torch.autograd.grad(total, rows.hidden_RH)[0]
        assert values(measured)["infinite_fraction"] == fraction
        assert gradient_RV.isfinite().all()
        assert not gradient_RV[ROLLOUTS < 2].any()
        assert gradient_RV[ROLLOUTS >= 2].any()


@pytest.mark.parametrize(
    "own",
    [
        {"preference_beta": 0.0},
        {"signal_clip": 5.0},
        {"ratio_clip": (0.0, 2.0)},
        {"entropy_gate": ("student", 0.5, 2.0)},
    ],
)
def test_what_does_not_go_with_pairs_is_refused(own: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"give one above 0|give a preference none"):
        Objective(kind="preference", **own)


def test_a_term_of_pairs_is_of_all_tokens() -> None:
    with pytest.raises(ValueError, match="no `where`"):
        Objective(kind="sum", terms=(Term(PREFERENCE, where=Where(text="other")),))
