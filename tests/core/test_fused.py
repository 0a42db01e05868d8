"""The fused divergence against the dense one in float64, its edges, and what it never holds in memory."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tutelage.core import products
from tutelage.core.batch import OutputHead
from tutelage.core.diagnostics import overlap_of_all
from tutelage.core.divergences import DIVERGENCES, PARAMETERS, divergence
from tutelage.core.fused import fused_divergence
from tutelage.core.pulls import PULLS
from tutelage.core.tiles import TILE

SETTINGS: list[tuple[str, dict[str, float]]] = [(kind, {}) for kind in PULLS]
SETTINGS += [("jsd", {"beta": beta}) for beta in (0.0, 0.1, 1.0)]
SETTINGS += [(kind, {"alpha": alpha}) for kind in ("skew_forward_kl", "skew_reverse_kl") for alpha in (0.0, 0.5)]
every_divergence = pytest.mark.parametrize(("kind", "params"), SETTINGS)
VOCABULARY, STUDENT_WIDTH, TEACHER_WIDTH = 11, 5, 7


def drawn(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def head_of(seed: int, width: int, padding: int = 0, *, bias: bool = True, **options: Any) -> OutputHead:
    size = VOCABULARY + padding
    return OutputHead(drawn(seed, size, width), drawn(seed + 1, size) if bias else None, **options)


def asking(hidden_RH: Tensor, head: OutputHead) -> list[Tensor]:
    """The student's tensors as leaves that collect gradients."""
    return [x.requires_grad_() for x in (hidden_RH, head.weight_VH, head.bias_V) if x is not None]


def dense_logits(hidden_RH: Tensor, head: OutputHead, temperature: float) -> Tensor:
    logits_RV = hidden_RH @ head.weight_VH.T
    logits_RV = head.scale * (logits_RV if head.bias_V is None else logits_RV + head.bias_V)
    logits_RV = logits_RV if head.softcap is None else head.softcap * torch.tanh(logits_RV / head.softcap)
    return logits_RV[:, :VOCABULARY] / temperature


@settings(max_examples=120, deadline=None)
@given(
    setting=st.sampled_from(SETTINGS),
    rows=st.integers(0, 9),
    tile_rows=st.integers(1, 10),
    padding=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    bias=st.tuples(st.booleans(), st.booleans()),
    scale=st.sampled_from([1.0, 0.3]),
    softcap=st.sampled_from([None, 2.0]),
    temperature=st.sampled_from([1.0, 0.7, 3.0]),
    seed=st.integers(0, 2**20),
)
def test_value_gradients_and_metrics_are_the_dense_ones(
    setting, rows, tile_rows, padding, bias, scale, softcap, temperature, seed
):
    kind, params = setting
    head = head_of(seed, STUDENT_WIDTH, padding[0], bias=bias[0], scale=scale, softcap=softcap)
    teacher_head = head_of(seed + 2, TEACHER_WIDTH, padding[1], bias=bias[1], softcap=softcap)
    hidden, teacher_hidden = drawn(seed + 4, rows, STUDENT_WIDTH), drawn(seed + 5, rows, TEACHER_WIDTH)
    ids = torch.arange(rows) % VOCABULARY
    leaves = asking(hidden, head)
    student, teacher = (dense_logits(x, y, temperature) for x, y in ((hidden, head), (teacher_hidden, teacher_head)))
    dense = divergence(kind, student, teacher, **params)
    expected = torch.autograd.grad(3 * dense.sum(), leaves)
    fused = fused_divergence(
        kind, hidden, head, teacher_hidden, teacher_head, token_ids_R=ids,
        temperature=temperature, vocabulary_size=VOCABULARY, tile_rows=tile_rows, **params,
    )  # fmt: skip
    assert torch.allclose(fused.divergence_R, dense, atol=1e-10)
    for one, other in zip(torch.autograd.grad(3 * fused.total, leaves), expected, strict=True):
        assert torch.allclose(one, other, atol=1e-10)
    assert_observed(fused, student, teacher, ids)


def assert_observed(fused, student, teacher, ids):
    logp, logq = student.log_softmax(-1), teacher.log_softmax(-1)
    expected = (
        logp.gather(-1, ids[:, None])[:, 0],
        logq.gather(-1, ids[:, None])[:, 0],
        divergence("reverse_kl", student, teacher),
        divergence("forward_kl", student, teacher),
        -torch.xlogy(logp.exp(), logp.exp()).sum(-1),
        -torch.xlogy(logq.exp(), logq.exp()).sum(-1),
        *overlap_of_all(logp, logq),
    )
    for name, exact, value in zip(fused.observed._fields, expected, fused.observed, strict=True):
        assert not value.requires_grad, name
        assert torch.allclose(value, exact, atol=1e-10), name


def test_a_divergence_without_a_written_gradient_is_refused():
    assert PULLS.keys() < DIVERGENCES.keys()
    hidden, head = drawn(1, 2, 5), head_of(3, 5)
    for kind in DIVERGENCES.keys() - PULLS.keys():
        with pytest.raises(ValueError, match="those that have are forward_kl"):
            fused_divergence(kind, hidden, head, hidden, head)


def test_parameters_reach_the_fused_divergences():
    for kind, name in ((kind, each.name) for kind, each in PARAMETERS.items() if kind in PULLS):
        hidden, other = drawn(1, 2, 5), drawn(2, 2, 5)
        head = head_of(3, 5)
        settings_of: list[dict[str, Any]] = [{name: 0.2}, {name: 0.6}]
        one, two = (fused_divergence(kind, hidden, head, other, head, **params).total for params in settings_of)
        assert not torch.allclose(one, two)


@every_divergence
@pytest.mark.parametrize("who", ["student", "teacher", "both"])
def test_a_zero_probability_has_the_value_and_gradient_of_the_dense_form(kind, params, who):
    eye = torch.eye(VOCABULARY, dtype=torch.float64)
    biases = []
    for side in ("student", "teacher"):
        bias = drawn(len(side), VOCABULARY)
        bias[3] = -torch.inf if who in (side, "both") else bias[3]
        biases.append(bias)
    heads = [OutputHead(eye, bias) for bias in biases]
    hidden, other = drawn(1, 4, VOCABULARY).requires_grad_(), drawn(2, 4, VOCABULARY)
    dense = divergence(kind, hidden + biases[0], other + biases[1], **params)
    ids = torch.tensor([3, 0, 3, 1])
    fused = fused_divergence(kind, hidden, heads[0], other, heads[1], token_ids_R=ids, tile_rows=3, **params)
    assert torch.allclose(fused.divergence_R, dense)
    assert_observed(fused, hidden + biases[0], other + biases[1], ids)
    assert fused.total.isfinite()
    expected = torch.autograd.grad(torch.where(dense.isposinf(), 0.0, dense).sum(), hidden)[0]
    assert torch.allclose(torch.autograd.grad(fused.total, hidden)[0], expected, atol=1e-12)


@every_divergence
@pytest.mark.parametrize("scale", [1e3, 1e6])
def test_extreme_logits_keep_values_and_gradients_finite(kind, params, scale):
    hidden = (scale * drawn(1, 3, VOCABULARY, dtype=torch.float32)).requires_grad_()
    other = scale * drawn(2, 3, VOCABULARY, dtype=torch.float32)
    head = OutputHead(torch.eye(VOCABULARY))
    fused = fused_divergence(kind, hidden, head, other, head, **params)
    exact = divergence(kind, hidden.double(), other.double(), **params)
    assert torch.allclose(fused.divergence_R.double(), exact, rtol=1e-5)
    gradient = torch.autograd.grad(fused.total, hidden)[0]
    assert torch.allclose(gradient, torch.autograd.grad(exact.sum(), hidden)[0], rtol=1e-4, atol=1e-5)


@every_divergence
def test_float32_is_as_accurate_as_its_numbers(kind, params):
    size, width, rows = 3000, 16, 12
    head, teacher_head = (OutputHead(0.5 * drawn(s, size, width, dtype=torch.float32)) for s in (1, 2))
    hidden, other = (drawn(s, rows, width, dtype=torch.float32) for s in (3, 4))
    leaves = asking(hidden, head)
    fused = fused_divergence(kind, hidden, head, other, teacher_head, tile_rows=5, **params)
    student, teacher = (x.double() @ y.weight_VH.double().T for x, y in ((hidden, head), (other, teacher_head)))
    exact = divergence(kind, student, teacher, **params).sum()
    assert fused.total.item() == pytest.approx(exact.item(), rel=1e-5)
    expected = torch.autograd.grad(exact, leaves)
    for one, other_gradient in zip(torch.autograd.grad(fused.total, leaves), expected, strict=True):
        assert (one - other_gradient).norm() <= 1e-4 * other_gradient.norm()


def test_bfloat16_products_are_compared_and_summed_in_float32():
    size, width, rows = 500, 16, 200
    head, teacher_head = (OutputHead(drawn(s, size, width).bfloat16()) for s in (1, 2))
    hidden, other = (drawn(s, rows, width).bfloat16() for s in (3, 4))
    leaves = asking(hidden, head)
    fused = fused_divergence("reverse_kl", hidden, head, other, teacher_head, tile_rows=8)
    student = (hidden @ head.weight_VH.T).detach().double().requires_grad_()
    exact = divergence("reverse_kl", student, (other @ teacher_head.weight_VH.T).double()).sum()
    assert fused.divergence_R.dtype == torch.float32
    assert fused.total.item() == pytest.approx(exact.item(), rel=1e-5)
    logit_gradient = torch.autograd.grad(exact, student)[0]
    hidden_gradient, weight_gradient = torch.autograd.grad(fused.total, leaves)
    assert (hidden_gradient.dtype, weight_gradient.dtype) == (torch.bfloat16, torch.bfloat16)
    for one, exact_gradient in (
        (hidden_gradient, logit_gradient @ head.weight_VH.double()),
        (weight_gradient, logit_gradient.T @ hidden.double()),
    ):
        assert (one - exact_gradient).norm() < 4e-3 * exact_gradient.norm()  # one rounding to bfloat16, not 25


@pytest.mark.parametrize("widened", [True, False])
def test_bfloat16_has_one_result_with_and_without_instructions_for_it(widened):
    size, width, rows = 1100, 4096, 20
    assert len(list(products.blocks(torch.empty(size, width)))) == 2
    head, teacher_head = (OutputHead((0.03 * drawn(s, size, width)).bfloat16()) for s in (1, 2))
    hidden, other = (drawn(s, rows, width).bfloat16() for s in (3, 4))
    leaves = asking(hidden, head)
    found = fused_divergence("reverse_kl", hidden, head, other, teacher_head, tile_rows=7, widened=widened)
    wide = [x.detach().double().requires_grad_() for x in leaves]
    exact = divergence("reverse_kl", wide[0] @ wide[1].T, other.double() @ teacher_head.weight_VH.double().T).sum()
    assert found.total.item() == pytest.approx(exact.item(), rel=1e-6 if widened else 1e-2)
    for one, expected in zip(torch.autograd.grad(found.total, leaves), torch.autograd.grad(exact, wide), strict=True):
        assert one.dtype == torch.bfloat16
        assert (one - expected).norm() < (4e-3 if widened else 5e-2) * expected.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_wide_enough_is_multiplied_as_it_is(dtype):
    assert not products.lacks_instructions(dtype, torch.device("cpu"))
    assert not products.lacks_instructions(torch.bfloat16, torch.device("cuda"))
    head, hidden, other = (
        OutputHead(drawn(1, 30, 8, dtype=dtype)),
        drawn(2, 5, 8, dtype=dtype),
        drawn(3, 5, 8, dtype=dtype),
    )
    one, two = (fused_divergence("jsd", hidden, head, other, head, widened=w).divergence_R for w in (True, False))
    assert torch.equal(one, two)


def test_autocast_takes_the_products_in_its_own_precision():
    head, teacher_head = (OutputHead(drawn(s, 50, 8, dtype=torch.float32)) for s in (1, 2))
    hidden, other = (drawn(s, 6, 8, dtype=torch.float32) for s in (3, 4))
    leaves = asking(hidden, head)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fused = fused_divergence("reverse_kl", hidden, head, other, teacher_head)
        exact = divergence("reverse_kl", hidden @ head.weight_VH.T, other @ teacher_head.weight_VH.T)
    assert torch.allclose(fused.divergence_R, exact, rtol=1e-5, atol=1e-5)
    assert [x.dtype for x in torch.autograd.grad(fused.total, leaves)] == [torch.float32, torch.float32]


class Largest(TorchDispatchMode):
    """Notes the most elements of any tensor that an operation gives, and counts the matrix products."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.of_rows = 0
        self.products = 0
        self.head = (vocabulary, width)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.products += func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm_, torch.ops.aten.addmm)
        for value in result if isinstance(result, tuple | list) else (result,):
            if isinstance(value, Tensor) and value.shape not in (self.head, self.head[::-1]):
                self.of_rows = max(self.of_rows, value.numel())
        return result


def watched(rows: int, tile_rows: int, *, frozen: bool = False, kind: str = "jsd") -> Largest:
    size, width = 600, 4
    head, teacher_head = (OutputHead(drawn(s, size, width, dtype=torch.float32)) for s in (1, 2))
    hidden, other = (drawn(s, rows, width, dtype=torch.float32) for s in (3, 4))
    hidden.requires_grad_()
    head.weight_VH.requires_grad_(not frozen)
    with Largest(size, width) as largest:
        fused_divergence(kind, hidden, head, other, teacher_head, tile_rows=tile_rows).total.backward()
    return largest


@pytest.mark.parametrize("kind", PULLS)
def test_no_tensor_is_larger_than_the_student_s_tile_whatever_the_rows(kind):
    assert watched(64, 8, kind=kind).of_rows == watched(512, 8, kind=kind).of_rows == 8 * 600


def test_a_tile_has_as_many_rows_as_its_entries_allow_and_all_tiles_the_same():
    width, size, rows = 1, TILE // 4, 9
    hidden, head = torch.ones(rows, width), OutputHead(torch.ones(size, width))
    with Largest(size, width) as largest:
        fused_divergence("tvd", hidden, head, hidden, head)
    assert largest.of_rows == 3 * size  # 4, 4 and 1 would be as many tiles


def test_a_tile_costs_five_products_as_the_teacher_s_is_cut_in_two_and_four_where_the_head_is_frozen():
    assert watched(64, 8).products == 5 * 8
    assert watched(64, 8, frozen=True).products == 4 * 8


def test_what_asks_for_no_gradient_gets_none():
    hidden, head = drawn(1, 4, STUDENT_WIDTH), head_of(2, STUDENT_WIDTH)
    other, teacher_head = drawn(3, 4, TEACHER_WIDTH), head_of(4, TEACHER_WIDTH)
    assert not fused_divergence("jsd", hidden, head, other, teacher_head).total.requires_grad
    head.weight_VH.requires_grad_()
    total = fused_divergence("jsd", hidden, head, other, teacher_head).total
    total.backward()
    assert head.bias_V is not None and head.weight_VH.grad is not None
    assert (hidden.grad, head.bias_V.grad) == (None, None)
    expected = divergence("jsd", dense_logits(hidden, head, 1.0), dense_logits(other, teacher_head, 1.0)).sum()
    assert torch.allclose(head.weight_VH.grad, torch.autograd.grad(expected, head.weight_VH)[0], atol=1e-12)
    with torch.no_grad():
        assert not fused_divergence("jsd", hidden, head, other, teacher_head).total.requires_grad


def test_the_gradient_is_handed_out_once():
    hidden = drawn(1, 4, STUDENT_WIDTH).requires_grad_()
    head, other, teacher_head = head_of(2, STUDENT_WIDTH), drawn(3, 4, TEACHER_WIDTH), head_of(4, TEACHER_WIDTH)
    total = fused_divergence("jsd", hidden, head, other, teacher_head).total
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="handed out once"):
        total.backward()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"kind": "jds"}, "unknown divergence 'jds'"),
        ({"beta": 2.0}, "beta is 2.0"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"tile_rows": 0}, "tile_rows 0"),
        ({"vocabulary_size": 12}, "vocabulary_size is 12"),
        ({"vocabulary_size": 0}, "vocabulary_size is 0"),
        ({"teacher_hidden_RH": torch.zeros(3, 7)}, "4 rows and the teacher 3"),
        ({"teacher_head": OutputHead(torch.zeros(13, 7))}, "11 entries and the teacher's 13"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(changed, words):
    arguments = {
        "kind": "jsd", "hidden_RH": torch.zeros(4, 5), "head": OutputHead(torch.zeros(11, 5)),
        "teacher_hidden_RH": torch.zeros(4, 7), "teacher_head": OutputHead(torch.zeros(11, 7)),
    }  # fmt: skip
    with pytest.raises(ValueError, match=words) as refusal:
        fused_divergence(**arguments | changed)
    assert "\n" not in str(refusal.value)


def test_a_token_outside_the_vocabulary_is_refused():
    hidden, head = drawn(1, 4, STUDENT_WIDTH), head_of(2, STUDENT_WIDTH)
    with pytest.raises(ValueError, match="token id 11 lies outside"):
        fused_divergence("jsd", hidden, head, hidden, head, token_ids_R=torch.full((4,), VOCABULARY))
