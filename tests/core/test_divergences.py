"""Every row of the table obeys the axioms, its limits and its own definition, with and without zero probabilities."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tutelage.core.divergences import DIVERGENCES, F_DIVERGENCES, PARAMETERS, divergence, measure

SETTINGS = [(kind, {}) for kind in DIVERGENCES]
SETTINGS += [("jsd", {"beta": beta}) for beta in (0.0, 0.1, 0.9, 1.0)]
SETTINGS += [(kind, {"alpha": alpha}) for kind in ("skew_forward_kl", "skew_reverse_kl") for alpha in (0.0, 0.5)]
SETTINGS += [("alpha", {"alpha": alpha}) for alpha in (-1.0, 0.0, 0.3, 1.0, 2.0)]
SETTINGS += [("akl", {"head_mass": 0.9}), ("todi", {"slope": 0.0}), ("todi", {"slope": 3.0})]
LEARNED = [each for each in SETTINGS if each[0] not in ("akl", "todi")]  # their weights are detached
every_divergence = pytest.mark.parametrize(("kind", "params"), SETTINGS)
seeds = st.integers(0, 2**31 - 1)
sizes = st.integers(2, 40)
scales = st.floats(0.01, 20)
few = settings(max_examples=40, deadline=None)


def drawn(seed: int, size: int, scale: float, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = scale * torch.randn(2, 4, size, generator=generator, dtype=dtype)
    return student, teacher


def kl(a: Tensor, b: Tensor) -> Tensor:
    return (a * (a / b).log()).sum(-1)


def alpha_by_definition(p: Tensor, q: Tensor, alpha: float) -> Tensor:
    if alpha in (0, 1):
        return kl(q, p) if alpha else kl(p, q)
    return ((q**alpha * p ** (1 - alpha)).sum(-1) - 1) / (alpha * (alpha - 1))


def akl_by_definition(p: Tensor, q: Tensor, head_mass: float) -> Tensor:
    values = []
    for p_V, q_V, forward, reverse in zip(p, q, kl(q, p), kl(p, q), strict=True):
        order, mass, gaps = q_V.argsort(descending=True).tolist(), 0.0, [0.0, 0.0]
        for v in order:
            gaps[int(mass >= head_mass)] += float((p_V[v] - q_V[v]).abs())
            mass += float(q_V[v])
        values.append((gaps[0] * forward + gaps[1] * reverse) / sum(gaps))
    return torch.stack(values)


def todi_by_definition(p: Tensor, q: Tensor, slope: float) -> Tensor:
    a = q**slope / (q**slope + p**slope)
    return (a * q * (q / p).log() + (1 - a) * p * (p / q).log()).sum(-1)


def concrete_score_by_definition(p: Tensor, q: Tensor) -> Tensor:
    d = (p / q).log()
    pairs = (d[:, :, None] - d[:, None, :]) ** 2
    return 0.5 * (q[:, :, None] * q[:, None, :] * pairs).sum((-1, -2))


OTHERS = {
    "hellinger": lambda p, q, _: 0.5 * (p.sqrt() - q.sqrt()).square().sum(-1),
    "chi_square": lambda p, q, _: ((p - q).square() / p).sum(-1),
    "alpha": lambda p, q, params: alpha_by_definition(p, q, params.get("alpha", 0.5)),
    "akl": lambda p, q, params: akl_by_definition(p, q, params.get("head_mass", 0.5)),
    "todi": lambda p, q, params: todi_by_definition(p, q, params.get("slope", 1.0)),
    "concrete_score": lambda p, q, _: concrete_score_by_definition(p, q),
}


def by_definition(kind: str, p: Tensor, q: Tensor, **params: float) -> Tensor:
    if kind in OTHERS:
        return OTHERS[kind](p, q, params)
    beta, alpha = params.get("beta", 0.5), params.get("alpha", 0.1)
    m = beta * q + (1 - beta) * p
    skewed = {"skew_forward_kl": alpha * q + (1 - alpha) * p, "skew_reverse_kl": alpha * p + (1 - alpha) * q}
    if kind == "tvd":
        return 0.5 * (p - q).abs().sum(-1)
    if kind == "jsd" and 0 < beta < 1:
        return beta * kl(q, m) + (1 - beta) * kl(p, m)
    if kind in ("forward_kl", "skew_forward_kl") or (kind == "jsd" and beta == 0):
        return kl(q, skewed.get(kind, p))
    return kl(p, skewed.get(kind, q))


@every_divergence
@few
@given(seed=seeds, size=sizes, scale=scales)
def test_a_divergence_is_zero_on_itself_and_never_negative(kind, params, seed, size, scale):
    student, teacher = drawn(seed, size, scale)
    assert divergence(kind, student, student, **params).abs().max() < 1e-12
    assert divergence(kind, student, teacher, **params).min() > -1e-12
    assert divergence(kind, student, teacher, **params).shape == (4,)


@every_divergence
@few
@given(seed=seeds, size=sizes, scale=st.floats(0.01, 5))
def test_the_value_is_its_definition(kind, params, seed, size, scale):
    student, teacher = drawn(seed, size, scale)
    expected = by_definition(kind, student.softmax(-1), teacher.softmax(-1), **params)
    assert torch.allclose(divergence(kind, student, teacher, **params), expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("kind", "params"), LEARNED)
@few
@given(seed=seeds, size=st.integers(2, 7))
def test_the_gradient_is_that_of_finite_differences(kind, params, seed, size):
    student, teacher = drawn(seed, size, 1.5)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda logits: divergence(kind, logits, teacher, **params), student)


@every_divergence
@few
@given(seed=seeds, size=sizes, scale=scales, who=st.sampled_from(["student", "teacher", "both"]), at=st.integers(0, 39))
def test_a_zero_probability_gives_no_nan_in_value_or_gradient(kind, params, seed, size, scale, who, at):
    student, teacher = drawn(seed, size, scale)
    for logits, name in ((student, "student"), (teacher, "teacher")):
        if who in (name, "both"):
            logits[0, at % size] = -torch.inf
    student.requires_grad_()
    value = divergence(kind, student, teacher, **params)
    value.sum().backward()
    assert student.grad is not None
    assert not value.isnan().any()
    assert student.grad.isfinite().all()
    assert value[1:].isfinite().all()


def test_zero_probabilities_have_the_values_of_the_definition():
    half, one = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, -torch.inf]])
    assert divergence("reverse_kl", one, half).item() == pytest.approx(math.log(2))
    assert divergence("reverse_kl", half, one).item() == math.inf
    assert divergence("forward_kl", half, one).item() == pytest.approx(math.log(2))
    assert divergence("forward_kl", one, half).item() == math.inf
    assert divergence("tvd", one, half).item() == pytest.approx(0.5)
    disjoint = torch.tensor([[-torch.inf, 0.0]])
    assert divergence("jsd", one, disjoint).item() == pytest.approx(math.log(2))
    assert divergence("skew_forward_kl", one, disjoint, alpha=0.1).item() == pytest.approx(math.log(10))
    assert divergence("skew_reverse_kl", one, disjoint, alpha=0.1).item() == pytest.approx(math.log(10))


@few
@given(seed=seeds, size=sizes)
def test_jsd_rescaled_goes_to_forward_and_reverse_kl(seed, size):
    student, teacher = drawn(seed, size, 1.0)
    small = 1e-6
    near_zero = divergence("jsd", student, teacher, beta=small) / small
    near_one = divergence("jsd", student, teacher, beta=1 - small) / small
    assert torch.allclose(near_zero, divergence("forward_kl", student, teacher), rtol=1e-3, atol=1e-8)
    assert torch.allclose(near_one, divergence("reverse_kl", student, teacher), rtol=1e-3, atol=1e-8)


@few
@given(seed=seeds, size=sizes, beta=st.floats(0.01, 0.99), scale=scales)
def test_beta_lies_on_the_teacher_and_jsd_is_bounded(seed, size, beta, scale):
    student, teacher = drawn(seed, size, scale)
    value = divergence("jsd", student, teacher, beta=beta)
    assert torch.allclose(value, divergence("jsd", teacher, student, beta=1 - beta), atol=1e-12)
    assert value.max() <= -beta * math.log(beta) - (1 - beta) * math.log1p(-beta) + 1e-12


@few
@given(seed=seeds, size=sizes)
def test_skew_divergences_go_to_the_plain_ones_as_alpha_vanishes(seed, size):
    student, teacher = drawn(seed, size, 1.0)
    for skewed, plain in (("skew_forward_kl", "forward_kl"), ("skew_reverse_kl", "reverse_kl")):
        expected = divergence(plain, student, teacher)
        assert torch.equal(divergence(skewed, student, teacher, alpha=0.0), expected)
        assert torch.allclose(divergence(skewed, student, teacher, alpha=1e-7), expected, rtol=1e-4, atol=1e-7)


@few
@given(seed=seeds, size=sizes, scale=scales)
def test_reverse_kl_to_a_uniform_teacher_is_log_v_minus_the_entropy(seed, size, scale):
    student, _ = drawn(seed, size, scale)
    logp = student.log_softmax(-1)
    entropy = -(logp.exp() * logp).sum(-1)
    value = divergence("reverse_kl", student, torch.zeros_like(student))
    assert torch.allclose(value, math.log(size) - entropy, atol=1e-10)


def test_half_precision_logits_are_compared_in_float32():
    student, teacher = drawn(0, 50, 3.0, torch.float32)
    value = divergence("reverse_kl", student.bfloat16(), teacher.bfloat16())
    assert value.dtype == torch.float32
    exact = divergence("reverse_kl", student.bfloat16().double(), teacher.bfloat16().double())
    assert torch.allclose(value.double(), exact, rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "params", "words"),
    [
        ("reverse_lk", {}, "unknown divergence 'reverse_lk'; known are forward_kl"),
        ("jsd", {"beta": 1.5}, "beta is 1.5"),
        ("jsd", {"beta": math.nan}, "beta is nan"),
        ("skew_forward_kl", {"alpha": 1.0}, "alpha is 1.0"),
        ("skew_reverse_kl", {"alpha": -0.1}, "alpha is -0.1"),
        ("alpha", {"alpha": 1e-9}, "alpha is 1e-09; the order is 0, 1, or 0.001 away"),
        ("akl", {"head_mass": 1.0}, "head_mass is 1.0"),
        ("todi", {"slope": -1.0}, "slope is -1.0"),
        ("tvd", {"beta": 0.5}, "'tvd' has no parameter 'beta'; it has none"),
        ("jsd", {"alpha": 0.5}, "'jsd' has no parameter 'alpha'; its parameter is beta"),
    ],
)
def test_what_a_divergence_does_not_know_is_refused_in_one_sentence(kind, params, words):
    with pytest.raises(ValueError, match=words) as refusal:
        divergence(kind, torch.zeros(1, 3), torch.zeros(1, 3), **params)
    assert "\n" not in str(refusal.value)


def test_vocabularies_of_different_size_are_refused():
    with pytest.raises(ValueError, match="3 logits and the teacher 4"):
        divergence("tvd", torch.zeros(1, 3), torch.zeros(1, 4))


def test_rows_that_do_not_face_each_other_are_refused():
    with pytest.raises(ValueError, match=r"student's logits are \[2, 3\] and the teacher's \[1, 3\]"):
        divergence("tvd", torch.zeros(2, 3), torch.zeros(1, 3))


def test_the_parameter_table_names_arguments_of_its_functions():
    """Each parameter reaches its function: it moves the value, or with detached weights the gradient."""
    for kind, parameter in PARAMETERS.items():
        student, teacher = drawn(1, 5, 1.0)
        one, other = (
            measure(kind, **{parameter.name: value})(student.log_softmax(-1), teacher.log_softmax(-1))
            for value in (0.2, 0.7)
        )
        assert not torch.allclose(one, other)


@few
@given(seed=seeds, size=sizes, order=st.randoms(use_true_random=False))
def test_the_order_of_the_vocabulary_does_not_matter(seed, size, order):
    student, teacher = drawn(seed, size, 2.0)
    shuffled = list(range(size))
    order.shuffle(shuffled)
    for kind in DIVERGENCES:
        value = divergence(kind, student[:, shuffled], teacher[:, shuffled])
        assert torch.allclose(value, divergence(kind, student, teacher), rtol=1e-9, atol=1e-11), kind


@every_divergence
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_extreme_logits_give_no_nan(kind, params, dtype, size):
    student = torch.tensor([[size, 0.0, 1.0], [0.0, size, -size]], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([[0.0, size, 1.0], [size, -size, 0.0]], dtype=dtype)
    value = divergence(kind, student, teacher, **params)
    value.sum().backward()
    assert student.grad is not None
    assert not value.isnan().any()
    assert student.grad.isfinite().all()


@few
@given(seed=seeds, size=sizes, alpha=st.floats(-1, -1e-3) | st.floats(1e-3, 0.999) | st.floats(1.001, 2))
def test_the_alpha_divergence_changes_sides_with_its_order_and_meets_both_kls(seed, size, alpha):
    student, teacher = drawn(seed, size, 1.0)
    value = divergence("alpha", student, teacher, alpha=alpha)
    assert torch.allclose(value, divergence("alpha", teacher, student, alpha=1 - alpha), rtol=1e-6, atol=1e-8)
    for end, plain in ((1e-3, "reverse_kl"), (1 - 1e-3, "forward_kl")):
        near = divergence("alpha", student, teacher, alpha=end)
        assert torch.allclose(near, divergence(plain, student, teacher), rtol=2e-2, atol=1e-4)


def test_the_f_divergences_are_a_part_of_the_table():
    assert F_DIVERGENCES.items() < DIVERGENCES.items()
