"""w_f against autodiff of f, and the policy gradient against the exact gradient of each f-divergence."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tutelage.core.credit import Credit
from tutelage.core.divergences import DIVERGENCES, F_DIVERGENCES, divergence
from tutelage.core.f_weights import F_WEIGHTS
from tutelage.core.loss import loss
from tutelage.core.objective import Objective
from tutelage.core.targets import Target


def f_jsd(u: Tensor, beta: float = 0.5) -> Tensor:
    m = beta * u + 1 - beta
    return beta * u * (u / m).log() - (1 - beta) * m.log()


F = {
    "forward_kl": lambda u: u * u.log(),
    "reverse_kl": lambda u: -u.log(),
    "jsd": f_jsd,
    "tvd": lambda u: 0.5 * (u - 1).abs(),
    "skew_forward_kl": lambda u, alpha=0.1: u * (u / (alpha * u + 1 - alpha)).log(),
    "skew_reverse_kl": lambda u, alpha=0.1: -(alpha + (1 - alpha) * u).log(),
    "hellinger": lambda u: 0.5 * (1 - u.sqrt()) ** 2,
    "chi_square": lambda u: (u - 1) ** 2,
    "alpha": lambda u, alpha=0.5: (u**alpha - alpha * u - 1 + alpha) / (alpha * (alpha - 1)),
}
SETTINGS = [(kind, {}) for kind in F_WEIGHTS]
SETTINGS += [("jsd", {"beta": 0.2}), ("skew_forward_kl", {"alpha": 0.6}), ("skew_reverse_kl", {"alpha": 0.6})]
SETTINGS += [("alpha", {"alpha": alpha}) for alpha in (-0.7, 1.6)]
few = settings(max_examples=30, deadline=None)
seeds = st.integers(0, 2**31 - 1)
ENDS = [("jsd", {"beta": 0.0}), ("jsd", {"beta": 1.0}), ("skew_reverse_kl", {"alpha": 0.0})]
ENDS += [
    ("alpha", {"alpha": 0.0}),
    ("alpha", {"alpha": 1.0}),
    ("skew_forward_kl", {"alpha": 0.0}),
]


@pytest.mark.parametrize(("kind", "params"), SETTINGS)
@settings(max_examples=60, deadline=None)
@given(log_ratio=st.floats(-6, 6).filter(lambda value: abs(value) > 1e-6))
def test_the_weight_is_u_f_prime_less_f_up_to_its_value_at_one(kind, params, log_ratio):
    def weight(value: float) -> Tensor:
        u = torch.tensor(value, dtype=torch.float64).exp().requires_grad_()
        f = F[kind](u, **params)
        return (u * torch.autograd.grad(f, u)[0] - f).detach()

    at_one = torch.tensor(0.0) if kind == "tvd" else weight(0.0)
    got = F_WEIGHTS[kind](torch.tensor(log_ratio, dtype=torch.float64), **params)
    assert torch.allclose(got, weight(log_ratio) - at_one, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(("kind", "params"), SETTINGS)
@few
@given(seed=seeds, size=st.integers(2, 30))
def test_f_is_that_of_the_divergence(logits, kind, params, seed, size):
    student, teacher = logits(seed, 5, size), logits(seed + 1, 5, size)
    p, q = student.softmax(-1), teacher.softmax(-1)
    expected = (p * F[kind](q / p, **params)).sum(-1)
    assert torch.allclose(divergence(kind, student, teacher, **params), expected, atol=1e-10)


@pytest.mark.parametrize(("kind", "params"), SETTINGS + ENDS)
@few
@given(seed=seeds, scale=st.floats(0.1, 1.5))
def test_the_policy_gradient_descends_the_divergence_in_expectation(logits, make_batch, kind, params, seed, scale):
    """Every token once under mu = 1/7, weighted by p / mu."""
    student, teacher = logits(seed, 1, 7, scale=scale), logits(seed + 1, 1, 7, scale=scale)
    batch = make_batch(student.expand(7, 7), teacher.expand(7, 7))
    signals = replace(batch.teacher, sampled_logprob_R=teacher.log_softmax(-1)[0])
    mu = torch.full((7,), 1 / 7, dtype=torch.float64).log()
    batch = replace(batch, token_ids_R=torch.arange(7), behaviour_logprob_R=mu, teacher=signals)
    total, _ = loss(batch, Objective("policy_gradient", kind, ratio_clip=(0.0, 1e9), **params))
    got = torch.autograd.grad(total, batch.hidden_RH)[0].sum(0) / 7
    exact = student.clone().requires_grad_()
    divergence(kind, exact, teacher, **params).sum().backward()
    assert exact.grad is not None
    assert torch.allclose(got, exact.grad[0], atol=1e-9)


@pytest.mark.parametrize(("kind", "params"), SETTINGS + ENDS)
def test_a_weight_is_no_nan_at_either_end(kind, params):
    assert not F_WEIGHTS[kind](torch.tensor([-math.inf, -1e4, 0.0, 1e4]), **params).isnan().any()
    assert F_WEIGHTS[kind](torch.tensor(0.0), **params).abs() < 1e-6


def test_every_f_divergence_has_its_advantage():
    assert F_WEIGHTS.keys() == F_DIVERGENCES.keys() == F.keys()


def test_what_is_no_f_divergence_has_no_advantage():
    for kind in DIVERGENCES.keys() - F_WEIGHTS.keys():
        with pytest.raises(ValueError, match=f"{kind} is no f-divergence and has no advantage; use one of forward_kl"):
            Objective("policy_gradient", kind)


def test_only_reverse_kl_has_a_return_a_baseline_and_an_extrapolation():
    with pytest.raises(ValueError, match="a return of tvd descends no divergence of the sequence; use reverse_kl"):
        Objective("policy_gradient", "tvd", credit=Credit(steps=None))
    with pytest.raises(ValueError, match="an extrapolation at one token has no scale for tvd; use reverse_kl"):
        Objective("policy_gradient", "tvd", target=Target("extrapolation"))
    with pytest.raises(ValueError, match="the baseline is that of reverse_kl"):
        Objective("policy_gradient", "tvd", credit=Credit(baseline=True))
