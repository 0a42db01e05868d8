"""Supports: the tail bucket is exact on the coarsened vocabulary, and rows that cannot be right are not usable."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.core.batch import OutputHead, at_tokens, log_probabilities
from tutelage.core.divergences import DIVERGENCES, F_DIVERGENCES
from tutelage.core.loss import loss
from tutelage.core.objective import Objective
from tutelage.core.support import SUPPORTS

TOP_K = ("teacher_top_k", "student_top_k", "union_top_k")
few = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**31 - 1)


def aligned_with(batch, support, rest="tail"):
    return SUPPORTS[support].align(log_probabilities(batch.hidden_RH), batch, rest)


def coarsened(logits_RV, ids_RK):
    """The coarsened distribution by brute force: the set's entries and the sum of all others."""
    p_RV = logits_RV.softmax(-1)
    inside_RK = p_RV.gather(-1, ids_RK)
    return torch.cat([inside_RK, p_RV.scatter(-1, ids_RK, 0.0).sum(-1, keepdim=True)], -1)


@pytest.mark.parametrize("support", ["teacher_top_k", "student_top_k"])
@few
@given(seed=seeds, size=st.integers(4, 40), k=st.integers(1, 4), scale=st.floats(0.1, 6))
def test_the_tail_is_everything_outside(logits, make_batch, support, seed, size, k, scale):
    student, teacher = logits(seed, 3, size, scale=scale), logits(seed + 1, 3, size, scale=scale)
    batch = make_batch(student, teacher, k=k)
    ids = batch.teacher.topk_ids_RK if support == "teacher_top_k" else batch.teacher.candidate_ids_RC
    student_logp, teacher_logp = aligned_with(batch, support)
    assert torch.allclose(student_logp.exp(), coarsened(student, ids), atol=1e-12)
    assert torch.allclose(teacher_logp.exp(), coarsened(teacher, ids), atol=1e-12)


@pytest.mark.parametrize("kind", ["reverse_kl", "forward_kl", "tvd"])
@few
@given(seed=seeds, size=st.integers(4, 30), k=st.integers(1, 4), scale=st.floats(0.1, 6))
def test_the_union_is_both_sets_with_each_token_once(logits, make_batch, kind, seed, size, k, scale):
    student, teacher = logits(seed, 3, size, scale=scale), logits(seed + 1, 3, size, scale=scale)
    batch = make_batch(student, teacher, k=k)
    got = DIVERGENCES[kind](*aligned_with(batch, "union_top_k"))
    for row in range(3):
        both = {*batch.teacher.topk_ids_RK[row].tolist(), *batch.teacher.candidate_ids_RC[row].tolist()}
        ids = torch.tensor([sorted(both)])
        exact = DIVERGENCES[kind](*(coarsened(side[[row]], ids).log() for side in (student, teacher)))
        assert torch.allclose(got[row], exact, atol=1e-9)


@pytest.mark.parametrize("kind", F_DIVERGENCES)
@pytest.mark.parametrize("support", TOP_K)
@few
@given(seed=seeds, size=st.integers(4, 40), k=st.integers(1, 4), scale=st.floats(0.1, 6))
def test_a_coarsened_divergence_lies_between_zero_and_the_full_one(
    logits, make_batch, support, kind, seed, size, k, scale
):
    batch = make_batch(logits(seed, 3, size, scale=scale), logits(seed + 1, 3, size, scale=scale), k=k)
    coarse = DIVERGENCES[kind](*aligned_with(batch, support))
    full = DIVERGENCES[kind](*aligned_with(batch, "full"))
    assert coarse.min() > -1e-9
    assert ((full - coarse) / full.clamp(min=1)).min() > -1e-9


@pytest.mark.parametrize("support", TOP_K)
@few
@given(seed=seeds)
def test_a_set_of_the_whole_vocabulary_is_the_full_divergence_with_either_rest(logits, make_batch, support, seed):
    batch = make_batch(logits(seed, 3, 6), logits(seed + 1, 3, 6), k=6)
    for kind, divergence in DIVERGENCES.items():
        full = divergence(*aligned_with(batch, "full"))
        for rest in ("tail", "renormalise"):
            assert torch.allclose(divergence(*aligned_with(batch, support, rest)), full, atol=1e-10), (kind, rest)


@pytest.mark.parametrize("support", TOP_K)
@few
@given(seed=seeds, k=st.integers(1, 9), scale=st.floats(0.1, 6))
def test_renormalised_sides_both_sum_to_one(logits, make_batch, support, seed, k, scale):
    batch = make_batch(logits(seed, 5, 9, scale=scale), logits(seed + 1, 5, 9, scale=scale), k=k)
    for side in aligned_with(batch, support, "renormalise"):
        assert torch.allclose(side.exp().sum(-1), torch.ones(5, dtype=torch.float64))


@pytest.mark.parametrize("rest", ["tail", "renormalise"])
@pytest.mark.parametrize("support", TOP_K)
@few
@given(seed=seeds)
def test_padded_ids_change_nothing(logits, make_batch, support, rest, seed):
    batch = make_batch(logits(seed, 4, 9), logits(seed + 1, 4, 9))
    pad, hole = torch.full((4, 2), -1), torch.full((4, 2), torch.nan, dtype=torch.float64)
    teacher = batch.teacher
    padded = replace(
        teacher,
        topk_ids_RK=torch.cat([teacher.topk_ids_RK, pad], -1),
        topk_logprob_RK=torch.cat([teacher.topk_logprob_RK, hole], -1),
        candidate_ids_RC=torch.cat([teacher.candidate_ids_RC, pad], -1),
        candidate_logprob_RC=torch.cat([teacher.candidate_logprob_RC, hole], -1),
        candidate_valid_RC=torch.cat([teacher.candidate_valid_RC, pad > 0], -1),
    )
    assert SUPPORTS[support].usable(padded).all()
    for divergence in DIVERGENCES.values():
        plain = divergence(*aligned_with(batch, support, rest))
        assert torch.allclose(divergence(*aligned_with(replace(batch, teacher=padded), support, rest)), plain)


def test_a_small_student_tail_keeps_its_digits_in_float32(logits, make_batch):
    student = torch.tensor([[0.0, -25.0, -26.0, -27.0]])
    batch = make_batch(student, torch.zeros(1, 4), k=1)
    exact = student.double().log_softmax(-1)[0, 1:].logsumexp(-1)
    tail = aligned_with(batch, "student_top_k").student_logp_RS[0, -1]
    assert tail.item() == pytest.approx(exact.item(), rel=1e-6)


def test_a_student_without_mass_outside_the_set_has_an_empty_bucket(logits, make_batch):
    batch = make_batch(torch.tensor([[0.0, -torch.inf, -torch.inf]]), torch.zeros(1, 3), k=1)
    student_logp, teacher_logp = aligned_with(batch, "student_top_k")
    assert student_logp[0, -1] == -torch.inf
    assert DIVERGENCES["forward_kl"](student_logp, teacher_logp).item() == torch.inf


def test_a_teacher_rest_that_rounds_to_zero_is_not_taken_for_an_impossibility(logits, make_batch):
    batch = make_batch(torch.zeros(1, 4), torch.tensor([[0.0, -40.0, -40.0, -40.0]]), k=1)
    batch = replace(batch, teacher=replace(batch.teacher, topk_rest_R=torch.zeros(1)))
    assert DIVERGENCES["reverse_kl"](*aligned_with(batch, "teacher_top_k")).isfinite().all()


def test_rows_without_what_a_support_needs_are_not_usable(logits, make_batch):
    teacher = make_batch(logits(1, 6, 9), logits(2, 6, 9)).teacher
    teacher.valid_R[0] = False
    teacher.hidden_RH[1, 0] = torch.nan
    teacher.sampled_logprob_R[2] = torch.nan
    teacher.topk_logprob_RK[3, 1] = torch.nan
    teacher.candidate_valid_RC[4, 1] = False
    teacher.candidate_logprob_RC[5] = -torch.inf
    unusable = {name: (~support.usable(teacher)).nonzero().flatten().tolist() for name, support in SUPPORTS.items()}
    expected = {"full": [0, 1], "sampled": [0, 2], "teacher_top_k": [0, 3], "student_top_k": [0, 4, 5]}
    assert unusable == expected | {"union_top_k": [0, 3, 4, 5]}


def test_different_head_sizes_are_refused_unless_the_shared_size_is_given(logits, make_batch):
    batch = make_batch(logits(1, 3, 6), logits(2, 3, 6))
    weight = torch.cat([torch.eye(6), torch.ones(2, 6)]).double()
    wider = replace(batch, teacher=replace(batch.teacher, head=OutputHead(weight)))
    with pytest.raises(ValueError, match="student's head has 6 entries and the teacher's 8"):
        aligned_with(wider, "full")
    cut = aligned_with(replace(wider, vocabulary_size=6), "full")
    assert torch.allclose(cut.teacher_logp_RS, aligned_with(batch, "full").teacher_logp_RS)
    with pytest.raises(ValueError, match="vocabulary_size is 7"):
        log_probabilities(batch.hidden_RH, 7)


@pytest.mark.parametrize("support", TOP_K)
@few
@given(seed=seeds, k=st.integers(2, 5), places=st.permutations(range(5)), row=st.integers(0, 3), padded=st.booleans())
def test_a_set_that_names_a_token_twice_is_refused_unless_that_is_padding(
    logits, make_batch, support, seed, k, places, row, padded
):
    batch = make_batch(logits(seed, 4, 9), logits(seed + 1, 4, 9), k=k)
    objective = Objective("divergence", support=support)
    assert loss(batch, objective)[0].isfinite()
    pair = [place for place in places if place < k][:2]
    named = "candidate_ids_RC" if support == "student_top_k" else "topk_ids_RK"
    ids = getattr(batch.teacher, named).clone()
    token = -1 if padded else int(ids[row, pair[0]])
    ids[row, pair] = token
    repeating = replace(batch, teacher=replace(batch.teacher, **{named: ids}))
    if padded:
        assert loss(repeating, objective)[0].isfinite()
        return
    with pytest.raises(ValueError, match=f"{support} names the token {token} twice in row {row} "):
        loss(repeating, objective)


@pytest.mark.parametrize("support", ["teacher_top_k", "student_top_k"])
@few
@given(seed=seeds, k=st.integers(1, 5), row=st.integers(0, 3), over=st.floats(0.2, 3))
def test_a_set_with_more_than_all_of_the_probability_is_refused(logits, make_batch, support, seed, k, row, over):
    batch = make_batch(logits(seed, 4, 9), logits(seed + 1, 4, 9), k=k)
    named = "candidate_logprob_RC" if support == "student_top_k" else "topk_logprob_RK"
    logprob = getattr(batch.teacher, named).log_softmax(-1)
    objective = Objective("divergence", support=support)
    assert loss(replace(batch, teacher=replace(batch.teacher, **{named: logprob})), objective)[0].isfinite()
    logprob[row] += over
    with pytest.raises(
        ValueError, match=f"the teacher's probabilities on {support} add up to .* in row {row} of those"
    ):
        loss(replace(batch, teacher=replace(batch.teacher, **{named: logprob})), objective)


def test_a_repeated_token_in_a_row_that_is_not_learned_from_is_of_no_account(logits, make_batch):
    batch = make_batch(logits(1, 4, 9), logits(2, 4, 9))
    batch.teacher.topk_ids_RK[2] = 0
    batch.teacher.valid_R[2] = False
    assert loss(batch, Objective("divergence", support="teacher_top_k"))[0].isfinite()


def test_an_id_outside_the_vocabulary_is_refused():
    with pytest.raises(ValueError, match="token id 9 lies outside"):
        at_tokens(torch.zeros(1, 5), torch.tensor([[9]]))


def test_the_output_head_applies_bias_scale_and_softcap():
    head = OutputHead(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0.5, 0.0]), scale=3.0, softcap=4.0)
    got = head(torch.tensor([[1.0, -1.0]]))
    assert torch.allclose(got, 4 * torch.tanh(3 * torch.tensor([[2.5, -1.0]]) / 4))
    assert torch.allclose(replace(head, softcap=None)(torch.tensor([[1.0, -1.0]])), torch.tensor([[7.5, -3.0]]))


def test_forward_kl_to_a_truncated_teacher_is_that_of_its_renormalised_set_to_the_whole_student(logits, make_batch):
    student, teacher = logits(1, 6, 9), logits(2, 6, 9)
    batch = make_batch(student, teacher, k=3)
    total, _ = loss(batch, Objective("divergence", "forward_kl", support="teacher_top_k", rest="truncate"))
    leaf, exact = student.clone().requires_grad_(), torch.zeros(()).double()
    for row, ids in enumerate(batch.teacher.topk_ids_RK):
        q = teacher[row].softmax(-1)[ids]
        q = q / q.sum()
        exact = exact + (q * (q / leaf[row].softmax(-1)[ids]).log()).sum()
    assert torch.allclose(total, exact)
    gradient = torch.autograd.grad(exact, leaf)[0]
    assert torch.allclose(torch.autograd.grad(total, batch.hidden_RH)[0], gradient, atol=1e-12)


@pytest.mark.parametrize(
    "fields",
    [{"divergence": "reverse_kl"}, {"divergence": "todi"}, {"divergence": "jsd", "beta": 1.0}, {"divergence": "akl"}],
)
def test_a_divergence_that_is_infinite_to_a_truncated_teacher_is_refused(fields):
    with pytest.raises(ValueError, match="infinite to a truncated teacher; use rest tail"):
        Objective("divergence", support="teacher_top_k", rest="truncate", **fields)
