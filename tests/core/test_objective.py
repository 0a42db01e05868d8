"""The loss as a whole: every kind on every support, in chunks, with rows that must not count."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tutelage.core.batch import OutputHead, TokenBatch
from tutelage.core.divergences import DIVERGENCES, F_DIVERGENCES, divergence
from tutelage.core.estimators import ESTIMATORS
from tutelage.core.loss import learned_rows, loss
from tutelage.core.metrics import merge, values
from tutelage.core.objective import Objective

WITH_TEACHER = [Objective("policy_gradient", divergence=kind) for kind in F_DIVERGENCES]
WITH_TEACHER += [Objective("divergence", divergence=kind, support="full") for kind in DIVERGENCES]
WITH_TEACHER += [Objective("divergence", divergence=kind, support="sampled") for kind in ESTIMATORS]
WITH_TEACHER += [
    Objective("divergence", divergence=kind, support=support, rest=rest)
    for kind in DIVERGENCES
    for support in ("teacher_top_k", "student_top_k", "union_top_k")
    for rest in ("tail", "renormalise")
]
EVERY = [*WITH_TEACHER, Objective("supervised"), Objective("constant_penalty", penalty=0.3, max_probability=0.5)]
STABILISED = {"signal_clip": 1.0, "ratio_clip": (0.5, 1.5), "special_ids": frozenset({2}), "reference_coef": 0.1}


seeds = st.integers(0, 2**31 - 1)
few = settings(max_examples=10, deadline=None)  # of each of more than a hundred objectives


def named(objective: Objective) -> str:
    return f"{objective.kind}-{objective.divergence}-{objective.support}-{objective.rest}"


every_objective = pytest.mark.parametrize("objective", EVERY, ids=named)
with_teacher = pytest.mark.parametrize("objective", WITH_TEACHER, ids=named)


def loss_and_gradient(batch: TokenBatch, objective: Objective, chunk_rows: int = 1024) -> tuple[Tensor, Tensor]:
    fresh = replace(batch, hidden_RH=batch.hidden_RH.detach().clone().requires_grad_())
    total, _ = loss(fresh, objective, chunk_rows=chunk_rows)
    return total.detach(), torch.autograd.grad(total, fresh.hidden_RH)[0]


@with_teacher
@few
@given(dtype=st.sampled_from([torch.float32, torch.float64]), seed=seeds, signal_clip=st.none() | st.floats(0.1, 5))
def test_a_student_that_equals_its_teacher_has_no_loss_and_no_gradient(
    logits, make_batch, objective, dtype, seed, signal_clip
):
    same = logits(seed, 12, 11, dtype=dtype)
    total, gradient = loss_and_gradient(make_batch(same, same), replace(objective, signal_clip=signal_clip))
    assert total.abs() < (1e-5 if dtype == torch.float32 else 1e-12)
    if objective.divergence != "tvd":  # it has a kink where both are equal
        assert gradient.abs().max() < (1e-5 if dtype == torch.float32 else 1e-12)


@every_objective
@pytest.mark.parametrize("stabilisers", [{}, STABILISED], ids=["plain", "stabilised"])
def test_chunks_change_neither_loss_nor_gradient(logits, make_batch, objective, stabilisers):
    batch = make_batch(logits(1, 13, 7), logits(2, 13, 7))
    objective = replace(objective, **stabilisers)
    whole = loss_and_gradient(batch, objective)
    for chunk_rows in (1, 4, 13):
        for one, other in zip(whole, loss_and_gradient(batch, objective, chunk_rows=chunk_rows), strict=True):
            assert torch.allclose(one, other, atol=1e-12)


@every_objective
def test_micro_batches_change_neither_loss_nor_gradient_nor_metrics(logits, make_batch, objective):
    batch = make_batch(logits(1, 12, 7), logits(2, 12, 7))
    batch.mask_R[3:6] = False
    objective = replace(objective, **STABILISED)
    total, gradient = loss_and_gradient(batch, objective)
    parts = [batch.take(slice(0, 2)), batch.take(torch.arange(2, 7)), batch.take(slice(7, 12))]
    pieces = [loss_and_gradient(part, objective) for part in parts]
    assert torch.allclose(total, torch.stack([piece[0] for piece in pieces]).sum(), atol=1e-12)
    assert torch.allclose(gradient, torch.cat([piece[1] for piece in pieces]), atol=1e-12)
    whole = values(loss(batch, objective)[1])
    assert values(merge(loss(part, objective)[1] for part in parts)) == pytest.approx(whole)


@every_objective
@few
@given(seed=seeds, order=st.permutations(range(12)))
def test_neither_the_order_of_rows_nor_a_second_copy_of_them_changes_the_mean(
    logits, make_batch, objective, seed, order
):
    batch = make_batch(logits(seed, 12, 7), logits(seed + 1, 12, 7))
    objective = replace(objective, **STABILISED)
    total, gradient = loss_and_gradient(batch, objective)
    order = torch.tensor(order)
    again, both = loss_and_gradient(batch.take(torch.cat([order, torch.arange(12)])), objective)
    assert torch.allclose(again, 2 * total, atol=1e-12)
    assert torch.allclose(both, torch.cat([gradient[order], gradient]), atol=1e-12)


@every_objective
@few
@given(seed=seeds, garbage=st.sampled_from([torch.nan, torch.inf, -torch.inf, 7.5]))
def test_rows_that_do_not_count_cannot_reach_the_gradient(logits, make_batch, objective, seed, garbage):
    """The same bits come out whatever masked and unscored rows hold, the student's own hidden states included."""
    batch = make_batch(logits(seed, 9, 7), logits(seed + 1, 9, 7))
    objective = replace(objective, ratio_clip=(0.5, 2.0), reference_coef=0.1)
    batch.mask_R[2] = False
    dead = torch.tensor([2])
    if objective.comparison is not None:
        batch.teacher.valid_R[5] = False
        dead = torch.tensor([2, 5])
    clean_total, clean_gradient = loss_and_gradient(batch, objective)
    spoilt = spoil(batch, dead, garbage)
    total, gradient = loss_and_gradient(spoilt, objective)
    assert torch.equal(total, clean_total)
    assert torch.equal(gradient, clean_gradient)
    assert gradient[dead].abs().max() == 0
    assert gradient[[0, 1, 3, 4, 6, 7, 8]].abs().sum() > 0


def spoil(batch: TokenBatch, dead: Tensor, garbage: float) -> TokenBatch:
    """The batch with `garbage` in the dead rows of everything that holds numbers, and an impossible token id."""

    def spoilt(value):
        if not isinstance(value, Tensor) or value.dtype == torch.bool or len(value) != len(batch):
            return value
        filling = garbage if value.is_floating_point() else 10**6
        return value.detach().index_fill(0, dead, filling)

    def all_of(record):
        names = (name for name in record.__dataclass_fields__ if name != "head")
        return replace(record, **{name: spoilt(getattr(record, name)) for name in names})

    return replace(all_of(batch), teacher=all_of(batch.teacher))


@with_teacher
@pytest.mark.parametrize("signal_clip", [None, 3.0])
@pytest.mark.parametrize(
    "field", ["sampled_logprob_R", "topk_logprob_RK", "candidate_logprob_RC", "hidden_RH", "student"]
)
def test_one_entry_of_minus_infinity_gives_no_nan(logits, make_batch, objective, signal_clip, field):
    batch = make_batch(logits(1, 5, 7), logits(2, 5, 7))
    objective = replace(objective, signal_clip=signal_clip)
    if field == "student":
        batch.hidden_RH.detach()[1, int(batch.token_ids_R[1])] = -torch.inf
    elif field == "hidden_RH":
        bias = torch.zeros(7).double()
        bias[3] = -torch.inf
        batch = replace(batch, teacher=replace(batch.teacher, head=replace(batch.teacher.head, bias_V=bias)))
    else:
        getattr(batch.teacher, field).flatten()[-1] = -torch.inf
    total, gradient = loss_and_gradient(batch, objective)
    assert total.isfinite()
    assert gradient.isfinite().all()
    assert all(value == value for value in values(loss(batch, objective)[1]).values())


@every_objective
@few
@given(
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    seed=seeds,
    extreme=st.lists(st.sampled_from([-1e4, 1e4]) | st.none(), min_size=7, max_size=7),
    masked=st.none() | st.integers(0, 6),
    whose=st.sampled_from(["student", "teacher", "both"]),
)
def test_extreme_logits_and_masked_ids_give_no_nan(logits, make_batch, objective, dtype, seed, extreme, masked, whose):
    """Logits of +-1e4 on either side, through heads that may forbid an id, which may be the one that was written."""
    models = [logits(seed + i, 5, 7).to(dtype) for i in range(2)]
    for name, model_RV in zip(("student", "teacher"), models, strict=True):
        for column, value in enumerate(extreme):
            if value is not None and whose in (name, "both"):
                model_RV[:4, column] = value if name == "student" else -value
    forbidden_V = torch.zeros(7)
    if masked is not None:
        forbidden_V[masked] = -torch.inf
    head = OutputHead(torch.eye(7, dtype=dtype), forbidden_V.to(dtype))
    batch = make_batch(*(model_RV.float() + forbidden_V for model_RV in models))
    batch = replace(
        batch, hidden_RH=models[0], head=head, teacher=replace(batch.teacher, hidden_RH=models[1], head=head)
    )
    total, gradient = loss_and_gradient(batch, objective)
    assert total.isfinite()
    assert gradient.isfinite().all()
    assert all(value == value for value in values(loss(batch, objective)[1]).values())


BATCH = ("hidden_RH", "mask_R", "behaviour_logprob_R", "reference_hidden_RH")
TEACHER = ("valid_R", "sampled_logprob_R", "topk_ids_RK", "topk_rest_R", "candidate_valid_RC", "entropy_R", "hidden_RH")


@pytest.mark.parametrize("name", [*BATCH, *(f"teacher.{name}" for name in TEACHER)])
@given(rows=st.integers(0, 8).filter(lambda rows: rows != 5), cut=st.booleans())
def test_rows_that_do_not_face_each_other_are_refused(logits, make_batch, name, rows, cut):
    batch = make_batch(logits(1, 5, 7), logits(2, 5, 7))
    field, of_teacher = name.removeprefix("teacher."), name.startswith("teacher.")
    value = getattr(batch.teacher if of_teacher else batch, field).detach()
    other = value[0] if cut and value.ndim == 1 else value[torch.arange(rows) % 5]
    changed = {"teacher": replace(batch.teacher, **{field: other})} if of_teacher else {field: other}
    with pytest.raises(
        ValueError, match=rf"{field} is \[.*\] and token_ids_R \[5\]; give a row for each written token"
    ):
        loss(replace(batch, **changed), Objective("divergence"))


@pytest.mark.parametrize(
    ("field", "other"),
    [
        ("topk_logprob_RK", "topk_ids_RK"),
        ("topk_ids_RK", "topk_logprob_RK"),
        ("candidate_ids_RC", "candidate_logprob_RC"),
        ("candidate_valid_RC", "candidate_logprob_RC"),
    ],
)
def test_entries_that_do_not_face_each_other_are_refused(logits, make_batch, field, other):
    batch = make_batch(logits(1, 5, 7), logits(2, 5, 7))
    teacher = replace(batch.teacher, **{field: getattr(batch.teacher, field)[:, :2]})
    with pytest.raises(ValueError, match=rf"{field} (is )?\[5, 2\]") as refused:
        loss(replace(batch, teacher=teacher), Objective("divergence"))
    assert f"{other} " in str(refused.value)


def test_a_row_of_infinite_loss_is_counted_and_signal_clip_brings_it_back(logits, make_batch):
    batch = make_batch(logits(1, 4, 7), logits(2, 4, 7))
    batch.teacher.sampled_logprob_R[1] = -torch.inf
    objective = Objective("policy_gradient")
    _, gradient = loss_and_gradient(batch, objective)
    measured = loss(batch, objective)[1]
    assert measured["infinite_fraction"] == (1, 4)
    assert measured["loss"][-1] == 4
    assert gradient[1].abs().max() == 0
    clipped = replace(objective, signal_clip=3.0)
    assert loss(batch, clipped)[1]["infinite_fraction"] == (0, 4)
    assert loss_and_gradient(batch, clipped)[1][1].abs().max() > 0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31 - 1))
def test_policy_gradient_on_text_of_any_policy_descends_reverse_kl_in_expectation(logits, make_batch, seed):
    """Every token once under mu = 1/7: the ratio weight p / mu turns the plain mean into the student's expectation."""
    student, teacher = logits(seed, 1, 7), logits(seed + 1, 1, 7)
    batch = make_batch(student.expand(7, 7), teacher.expand(7, 7))
    uniform = torch.full((7,), 1 / 7, dtype=torch.float64).log()
    every_token = torch.arange(7)
    signals = replace(batch.teacher, sampled_logprob_R=teacher.log_softmax(-1)[0])
    batch = replace(batch, token_ids_R=every_token, behaviour_logprob_R=uniform, teacher=signals)
    _, gradient = loss_and_gradient(batch, Objective("policy_gradient", ratio_clip=(0.0, 1e9)))
    exact = student.clone().requires_grad_()
    divergence("reverse_kl", exact, teacher).sum().backward()
    assert torch.allclose(gradient.sum(0) / 7, exact.grad[0], atol=1e-10)


def test_the_full_divergence_has_the_gradient_of_its_definition(logits, make_batch):
    student, teacher = logits(1, 6, 7), logits(2, 6, 7)
    for objective in (
        Objective("divergence", "reverse_kl"),
        Objective("divergence", "jsd", beta=0.3),
        Objective("divergence", "skew_reverse_kl", alpha=0.2),
    ):
        total, gradient = loss_and_gradient(make_batch(student, teacher), objective)
        leaf = student.clone().requires_grad_()
        exact = divergence(objective.divergence, leaf, teacher, **objective.parameters).sum()
        exact.backward()
        assert torch.allclose(total, exact)
        assert torch.allclose(gradient, leaf.grad, atol=1e-12)


def test_supervised_is_cross_entropy(logits, make_batch):
    batch = replace(make_batch(logits(1, 6, 7), logits(2, 6, 7)), teacher=None)
    total, gradient = loss_and_gradient(batch, Objective("supervised"))
    leaf = batch.hidden_RH.detach().clone().requires_grad_()
    exact = torch.nn.functional.cross_entropy(leaf, batch.token_ids_R, reduction="sum")
    exact.backward()
    assert torch.allclose(total, exact)
    assert torch.allclose(gradient, leaf.grad, atol=1e-12)


def test_the_constant_penalty_pushes_down_what_was_written(logits, make_batch):
    batch = replace(make_batch(logits(1, 6, 7), logits(2, 6, 7)), teacher=None)
    _, gradient = loss_and_gradient(batch, Objective("constant_penalty", penalty=0.5))
    supervised = loss_and_gradient(batch, Objective("supervised"))[1]
    assert torch.allclose(gradient, -0.5 * supervised, atol=1e-12)


def test_the_anchor_is_added_and_not_weighted(logits, make_batch):
    batch = make_batch(logits(1, 6, 7), logits(2, 6, 7))
    plain = loss_and_gradient(batch, Objective("supervised", ratio_clip=(0.0, 0.1)))[0]
    anchored = loss_and_gradient(batch, Objective("supervised", ratio_clip=(0.0, 0.1), reference_coef=0.2))[0]
    exact = 0.2 * divergence("reverse_kl", batch.hidden_RH.detach(), batch.reference_hidden_RH).sum()
    assert exact > 0.1
    assert torch.allclose(anchored - plain, exact)


def test_each_clip_moves_only_the_loss_that_it_is_meant_for(logits, make_batch):
    batch = make_batch(logits(1, 6, 7), logits(2, 6, 7, scale=6.0))
    plain = Objective("divergence", "forward_kl", support="teacher_top_k")
    alone = replace(batch, behaviour_logprob_R=None)
    assert torch.equal(
        loss_and_gradient(alone, replace(plain, ratio_clip=(0.9, 1.1)))[0], loss_and_gradient(alone, plain)[0]
    )
    assert not torch.allclose(
        loss_and_gradient(alone, replace(plain, signal_clip=0.5))[0], loss_and_gradient(alone, plain)[0]
    )
    same = replace(batch, teacher=make_batch(batch.hidden_RH.detach(), batch.hidden_RH.detach()).teacher)
    weighted = replace(Objective("supervised"), ratio_clip=(0.9, 1.1))
    assert torch.equal(
        loss_and_gradient(same, replace(weighted, signal_clip=0.5))[0], loss_and_gradient(same, weighted)[0]
    )
    assert not torch.allclose(loss_and_gradient(same, weighted)[0], loss_and_gradient(same, Objective("supervised"))[0])


def test_the_gradient_reaches_the_head_and_nothing_of_a_row_is_kept(logits, make_batch):
    """The output of the head is freed after each chunk and computed again in the backward pass."""
    batch = make_batch(logits(1, 8, 7), logits(2, 8, 7))
    linear = torch.nn.Linear(7, 7, dtype=torch.float64)
    calls: list[int] = []

    def head(hidden_RH: Tensor) -> Tensor:
        calls.append(len(hidden_RH))
        return linear(hidden_RH)

    total, _ = loss(replace(batch, head=head), Objective("divergence"), chunk_rows=4)
    assert calls == [4, 4]
    total.backward()
    assert calls == [4, 4, 4, 4]
    leaf = batch.hidden_RH.detach()
    exact = divergence("reverse_kl", linear(leaf), batch.teacher.hidden_RH).sum()
    assert linear.weight.grad is not None
    assert torch.allclose(linear.weight.grad, torch.autograd.grad(exact, linear.weight)[0], atol=1e-12)


def test_learned_rows_leave_out_masked_special_and_unscored_rows(logits, make_batch):
    batch = make_batch(logits(1, 6, 7), logits(2, 6, 7))
    batch.token_ids_R[:] = torch.tensor([0, 1, 2, 3, 4, 5])
    batch.mask_R[0] = False
    batch.teacher.valid_R[1] = False
    batch.teacher.candidate_valid_RC[2, 0] = False
    special = Objective("divergence", support="student_top_k", special_ids=frozenset({3}))
    assert learned_rows(batch, special).tolist() == [False, False, False, False, True, True]
    assert learned_rows(batch, Objective("supervised")).tolist() == [False, True, True, True, True, True]
    assert loss(batch, special)[1]["tokens"][0] == 2
    assert loss(batch, special)[1]["learned_fraction"] == (2, 5)


@pytest.mark.parametrize("of", ["teacher", "student"])
@pytest.mark.parametrize("support", ["full", "teacher_top_k", "sampled"])
def test_the_entropy_gate_leaves_the_rows_between_its_bounds_and_the_denominator(logits, make_batch, of, support):
    batch = make_batch(logits(1, 8, 7), logits(2, 8, 7))
    logp = (batch.teacher.hidden_RH if of == "teacher" else batch.hidden_RH.detach()).log_softmax(-1)
    entropy = -(logp.exp() * logp).sum(-1)
    low, high = (sum(sorted(entropy.tolist())[i : i + 2]) / 2 for i in (1, 5))
    plain = Objective("divergence", support=support, reference_coef=0.1)
    gated = replace(plain, entropy_gate=(of, low, high))
    without = loss_and_gradient(batch, replace(plain, reference_coef=None))[1]
    anchor = loss_and_gradient(batch, plain)[1] - without
    kept = ((entropy > low) & (entropy <= high))[:, None]
    assert kept.sum() == 4
    assert torch.allclose(loss_and_gradient(batch, gated)[1], without * kept + anchor, atol=1e-12)
    assert loss(batch, gated)[1]["tokens"][0] == 8


def test_a_row_whose_entropy_the_teacher_did_not_give_is_not_learned_from(logits, make_batch):
    batch = make_batch(logits(1, 4, 7), logits(2, 4, 7))
    batch.teacher.entropy_R[2] = torch.nan
    gate = ("teacher", 0.5, float("inf"))
    sampled = Objective("policy_gradient", entropy_gate=gate)
    assert learned_rows(batch, sampled).tolist() == [True, True, False, True]
    assert learned_rows(batch, Objective("divergence", entropy_gate=gate)).all()
    with pytest.raises(ValueError, match="the objective needs entropies"):
        loss(replace(batch, teacher=replace(batch.teacher, entropy_R=None)), sampled)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"kind": "divergances"}, "unknown objective kind 'divergances'; known are divergence"),
        ({"kind": "divergence", "support": "half"}, "unknown support 'half'"),
        ({"kind": "divergence", "rest": "drop"}, "unknown rest 'drop'"),
        ({"kind": "divergence", "divergence": "kl"}, "unknown divergence 'kl'"),
        ({"kind": "divergence", "divergence": "jsd", "beta": 2.0}, "beta is 2.0"),
        ({"kind": "divergence", "beta": 0.5}, "'reverse_kl' has no parameter 'beta'"),
        ({"kind": "divergence", "divergence": "jsd", "support": "sampled"}, "jsd has no sampled-token estimator"),
    ],
)
def test_an_impossible_objective_is_refused_in_one_sentence(fields, words):
    with pytest.raises(ValueError, match=words):
        Objective(**fields)


@pytest.mark.parametrize(
    ("objective", "what"),
    [
        (Objective("divergence"), "hidden states"),
        (Objective("divergence", support="teacher_top_k"), "top-k"),
        (Objective("divergence", support="student_top_k"), "candidates"),
        (Objective("policy_gradient"), "sampled log-probabilities"),
    ],
)
def test_a_missing_signal_is_named(logits, make_batch, objective, what):
    batch = make_batch(logits(1, 3, 7), logits(2, 3, 7))
    names = ("sampled_logprob_R", "topk_ids_RK", "candidate_ids_RC", "hidden_RH")
    silent = replace(batch, teacher=replace(batch.teacher, **dict.fromkeys(names)))
    for lacking, words in ((silent, what), (replace(batch, teacher=None), "teacher signals")):
        with pytest.raises(ValueError, match=f"the objective needs {words}"):
            loss(lacking, objective)
    with pytest.raises(ValueError, match="the objective needs the reference"):
        loss(replace(batch, reference_hidden_RH=None), replace(objective, reference_coef=0.1))
