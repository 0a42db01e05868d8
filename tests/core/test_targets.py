"""Targets: their ends, their definitions, and what they must not depend on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.core.divergences import divergence
from tutelage.core.loss import loss
from tutelage.core.objective import Objective
from tutelage.core.targets import Target, towards

few = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**31 - 1)
alphas = st.floats(-5, 0.99) | st.just(1.0)


@few
@given(seed=seeds, size=st.integers(2, 30), weight=st.floats(0, 1), alpha=alphas)
def test_a_mixture_is_its_definition_and_a_distribution(logits, seed, size, weight, alpha):
    p, q = logits(seed, 3, size).softmax(-1), logits(seed + 1, 3, size).softmax(-1)
    mixed = towards(Target("mixture", weight=weight, alpha=alpha), p.log(), q.log(), None).exp()
    if alpha == 1:
        exact = q**weight * p ** (1 - weight)
    else:
        power = (1 - alpha) / 2
        exact = (weight * q**power + (1 - weight) * p**power) ** (1 / power)
    assert torch.allclose(mixed, exact / exact.sum(-1, keepdim=True), rtol=1e-8)


@few
@given(seed=seeds, alpha=alphas)
def test_the_ends_of_a_mixture_are_student_and_teacher(logits, seed, alpha):
    p, q = logits(seed, 3, 8).log_softmax(-1), logits(seed + 1, 3, 8).log_softmax(-1)
    for weight, end in ((0.0, p), (1.0, q)):
        assert torch.equal(towards(Target("mixture", weight=weight, alpha=alpha), p, q, None), end)


@few
@given(seed=seeds, weight=st.floats(0, 1))
def test_the_arithmetic_mixture_is_that_of_probabilities(logits, seed, weight):
    p, q = logits(seed, 3, 8).softmax(-1), logits(seed + 1, 3, 8).softmax(-1)
    mixed = towards(Target("mixture", weight=weight, alpha=-1.0), p.log(), q.log(), None)
    assert torch.allclose(mixed.exp(), weight * q + (1 - weight) * p)


@few
@given(seed=seeds, weight=st.floats(0.01, 0.99))
def test_the_geometric_mixture_interpolates_logits(logits, seed, weight):
    student, teacher = logits(seed, 3, 8), logits(seed + 1, 3, 8)
    mixed = towards(Target("mixture", weight=weight), student.log_softmax(-1), teacher.log_softmax(-1), None)
    assert torch.allclose(mixed, ((1 - weight) * student + weight * teacher).log_softmax(-1))


def test_a_zero_probability_stays_zero_where_it_is_zero_on_both_sides():
    one, other = torch.tensor([[0.0, -torch.inf, -torch.inf]]), torch.tensor([[0.5, 0.5, 0.0]]).log()
    plain = towards(Target("mixture", alpha=-1.0), one, other, None).exp()
    assert torch.allclose(plain, torch.tensor([[0.75, 0.25, 0.0]]))
    assert plain[0, 2] == 0
    assert towards(Target("mixture"), one, other, None).exp().tolist() == [[1.0, 0.0, 0.0]]
    same = torch.tensor([[0.5, 0.5, 0.0]]).log()
    assert towards(Target("extrapolation", scale=2.0), one, other, same).exp().tolist() == [[0.5, 0.5, 0.0]]


@few
@given(seed=seeds, scale=st.floats(0, 3))
def test_an_extrapolation_is_the_optimum_of_kl_constrained_rl(logits, seed, scale):
    q, ref = logits(seed, 3, 8).log_softmax(-1), logits(seed + 1, 3, 8).log_softmax(-1)
    found = towards(Target("extrapolation", scale=scale), q, q, ref)
    assert torch.allclose(found, (scale * q + (1 - scale) * ref).log_softmax(-1), atol=1e-10)


EXTRAPOLATED = [
    Objective("divergence"),
    Objective("divergence", support="sampled"),
    Objective("policy_gradient"),
]


@pytest.mark.parametrize("objective", EXTRAPOLATED, ids=lambda o: f"{o.kind}-{o.support}")
@few
@given(seed=seeds, scale=st.sampled_from([1.0]) | st.floats(0, 3).filter(lambda scale: abs(scale - 1) > 1e-3))
def test_only_at_scale_one_does_no_reference_change_anything(logits, make_batch, objective, seed, scale):
    batch = make_batch(logits(seed, 5, 7), logits(seed + 1, 5, 7))
    objective = replace(objective, target=Target("extrapolation", scale=scale))
    gradients = []
    for other in (seed + 2, seed + 3):
        leaf = batch.hidden_RH.detach().clone().requires_grad_()
        own = replace(batch, hidden_RH=leaf, reference_hidden_RH=logits(other, 5, 7))
        gradients.append(torch.autograd.grad(loss(own, objective)[0], leaf)[0])
    assert torch.equal(*gradients) == (scale == 1)


@pytest.mark.parametrize("objective", EXTRAPOLATED, ids=lambda o: f"{o.kind}-{o.support}")
def test_scale_one_needs_no_reference(logits, make_batch, objective):
    batch = make_batch(logits(1, 5, 7), logits(2, 5, 7))
    without = replace(batch, reference_hidden_RH=None, reference_head=None)
    plain = loss(batch, objective)[0]
    assert torch.equal(loss(without, replace(objective, target=Target("extrapolation", scale=1.0)))[0], plain)
    with pytest.raises(ValueError, match="the objective needs the reference"):
        loss(without, replace(objective, target=Target("extrapolation", scale=1.25)))


@few
@given(seed=seeds, scale=st.floats(0, 3))
def test_the_extrapolated_advantage_is_that_of_g_opd(logits, make_batch, seed, scale):
    batch = make_batch(logits(seed, 5, 7), logits(seed + 1, 5, 7))
    total, _ = loss(batch, Objective("policy_gradient", target=Target("extrapolation", scale=scale)))
    ids = batch.token_ids_R[:, None]
    p, q, ref = (
        x.detach().log_softmax(-1).gather(-1, ids)[:, 0]
        for x in (batch.hidden_RH, batch.teacher.hidden_RH, batch.reference_hidden_RH)
    )
    assert total.item() == pytest.approx(-((q - p + (scale - 1) * (q - ref)) * p).sum().item())


def test_the_divergence_to_a_mixture_has_no_gradient_through_the_target(logits, make_batch):
    student, teacher = logits(1, 5, 7), logits(2, 5, 7)
    batch = make_batch(student, teacher)
    total, _ = loss(batch, Objective("divergence", "forward_kl", target=Target("mixture", weight=0.4)))
    leaf = student.clone().requires_grad_()
    exact = divergence("forward_kl", leaf, 0.6 * student + 0.4 * teacher).sum()
    assert torch.allclose(total, exact)
    got = torch.autograd.grad(total, batch.hidden_RH)[0]
    assert torch.allclose(got, torch.autograd.grad(exact, leaf)[0], atol=1e-12)


def test_the_clock_moves_the_weight_and_stops():
    target = Target("mixture", weight=0.4, final_weight=1.0, over_steps=3)
    assert [target.at(step).weight for step in range(5)] == pytest.approx([0.4, 0.6, 0.8, 1.0, 1.0])
    assert Objective("divergence", target=target).at(1).target.weight == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"kind": "teachr"}, "unknown target 'teachr'"),
        ({"kind": "mixture", "weight": 1.5}, "the weight is 1.5"),
        ({"kind": "mixture", "final_weight": -1.0}, "the weight is -1.0"),
        ({"kind": "mixture", "alpha": 0.999}, "alpha is 0.999"),
        ({"kind": "extrapolation", "scale": -1.0}, "scale is -1.0"),
        ({"kind": "mixture", "over_steps": 0}, "over_steps is 0"),
    ],
)
def test_an_impossible_target_is_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        Target(**fields)


def test_a_target_is_refused_on_a_support_that_cannot_carry_it():
    with pytest.raises(ValueError, match="a mixture needs distributions"):
        Objective("policy_gradient", target=Target("mixture"))
    with pytest.raises(ValueError, match="an extrapolation at one token has no scale for forward_kl"):
        Objective("divergence", "forward_kl", support="sampled", target=Target("extrapolation"))
    with pytest.raises(ValueError, match="an extrapolation is normalised"):
        Objective("divergence", support="teacher_top_k", target=Target("extrapolation"))


@few
@given(seed=seeds, weight=st.floats(0, 0.95), alpha=alphas)
def test_a_mixture_in_the_students_place_is_learned_through(logits, make_batch, seed, weight, alpha):
    """AMiD: KL(q || r) with the gradient through r, against autodiff of the definition."""
    student, teacher = logits(seed, 3, 6), logits(seed + 1, 3, 6)
    target = Target("mixture", weight=weight, alpha=alpha, stands_for="student")
    batch = make_batch(student, teacher)
    total, _ = loss(batch, Objective("divergence", "forward_kl", target=target))
    leaf, q = student.clone().requires_grad_(), teacher.softmax(-1)
    p, power = leaf.softmax(-1), (1 - alpha) / 2
    mixed = (weight * q**power + (1 - weight) * p**power) ** (1 / power) if power else q**weight * p ** (1 - weight)
    exact = (q * (q / (mixed / mixed.sum(-1, keepdim=True))).log()).sum()
    assert torch.allclose(total, exact, rtol=1e-6)
    assert torch.allclose(
        torch.autograd.grad(total, batch.hidden_RH)[0], torch.autograd.grad(exact, leaf)[0], atol=1e-7
    )


def test_a_mixture_without_the_student_cannot_stand_for_it():
    with pytest.raises(ValueError, match="give less than 1"):
        Target("mixture", weight=1.0, stands_for="student")
