"""Which gradient an estimator has, by enumeration of small vocabularies."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tutelage.core.credit import advantage, constant_penalty
from tutelage.core.divergences import divergence
from tutelage.core.estimators import ESTIMATORS, k2, k3, reinforce


def gradient(value: Tensor, leaf: Tensor) -> Tensor:
    return torch.autograd.grad(value, leaf)[0]


def pair_of(seed: int, size: int, scale: float) -> tuple[Tensor, Tensor]:
    """Logits of a student (a leaf) and of a teacher."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = scale * torch.randn(2, size, generator=generator, dtype=torch.float64)
    return student.requires_grad_(), teacher


pairs = st.builds(pair_of, seed=st.integers(0, 2**31 - 1), size=st.integers(2, 20), scale=st.floats(0.01, 3))
few = settings(max_examples=50, deadline=None)


@few
@given(pair=pairs)
def test_the_table_names_the_divergence_whose_gradient_each_has(pair):
    student, teacher = pair
    for name, estimator in ESTIMATORS.items():
        log_ratio = teacher.log_softmax(-1) - student.log_softmax(-1)
        expected = (student.softmax(-1).detach() * estimator(log_ratio)).sum()
        exact = divergence(name, student[None], teacher[None]).sum()
        assert torch.allclose(gradient(expected, student), gradient(exact, student), atol=1e-12), name
    assert {"reverse_kl": k2, "forward_kl": k3} == ESTIMATORS


@few
@given(pair=pairs)
def test_k3_has_the_value_of_reverse_kl_and_is_never_negative(pair):
    student, teacher = (logits.detach() for logits in pair)
    log_ratio = teacher.log_softmax(-1) - student.log_softmax(-1)
    expected = (student.softmax(-1) * k3(log_ratio)).sum()
    assert torch.allclose(expected, divergence("reverse_kl", student[None], teacher[None])[0])
    assert k3(log_ratio).min() >= 0


@few
@given(pair=pairs, other=pairs)
def test_k1_by_backprop_would_not_see_the_teacher(pair, other):
    student, teacher = pair
    size = min(len(student), len(other[1]))
    teachers = teacher[:size], other[1][:size]
    backprop = [gradient(-(t.log_softmax(-1) - student[:size].log_softmax(-1))[0], student) for t in teachers]
    assert torch.equal(*backprop)


@few
@given(pair=pairs)
def test_reinforce_with_the_teachers_advantage_descends_reverse_kl(pair):
    student, teacher = pair
    logp = student.log_softmax(-1)
    expected = (logp.exp().detach() * reinforce(advantage(logp, teacher.log_softmax(-1)), logp)).sum()
    exact = divergence("reverse_kl", student[None], teacher[None]).sum()
    assert torch.allclose(gradient(expected, student), gradient(exact, student), atol=1e-12)


@few
@given(pair=pairs, constant=st.floats(-5, 5))
def test_a_constant_in_the_advantage_has_no_gradient_in_expectation(pair, constant):
    """So the -1 of MiniLLM and of the weight of reverse KL may be left out."""
    student, _ = pair
    logp = student.log_softmax(-1)
    expected = (logp.exp().detach() * reinforce(torch.full_like(logp, constant), logp)).sum()
    assert gradient(expected, student).abs().max() < 1e-12


def test_the_advantage_carries_no_gradient():
    student, teacher = pair_of(0, 7, 1.0)
    assert not advantage(student.log_softmax(-1), teacher.log_softmax(-1)).requires_grad


@pytest.mark.parametrize("estimator", [k2, k3])
@pytest.mark.parametrize("value", [-torch.inf, torch.inf, torch.nan])
def test_an_infinite_ratio_is_an_infinite_loss_without_a_gradient(estimator, value):
    log_ratio = torch.tensor([value, 0.5], requires_grad=True)
    loss = estimator(log_ratio)
    loss.sum().backward()
    assert log_ratio.grad is not None
    assert loss[0] == torch.inf
    assert log_ratio.grad[0] == 0
    assert log_ratio.grad[1] != 0


def test_k3_that_overflows_is_infinite_without_a_gradient():
    log_ratio = torch.tensor([200.0], requires_grad=True)
    k3(log_ratio).sum().backward()
    assert k3(log_ratio).item() == torch.inf
    assert log_ratio.grad is not None
    assert log_ratio.grad.item() == 0


def test_the_constant_penalty_falls_on_improbable_tokens_only():
    logp = torch.tensor([0.9, 0.2, 0.05]).log()
    assert constant_penalty(logp, 0.5, 0.1).tolist() == [0.0, 0.0, -0.5]
    assert constant_penalty(logp, 2.0, 1.0).tolist() == [-2.0, -2.0, -2.0]
