"""Diagnostics have the value of their definition, written out with sets and sorting, on every path to them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.core.batch import OutputHead
from tutelage.core.diagnostics import TOP, overlap
from tutelage.core.loss import loss
from tutelage.core.metrics import merge, values
from tutelage.core.objective import Objective
from tutelage.core.outcome import Outcome
from tutelage.core.quantiles import BINS, OUTER, QUANTILES, ByPosition, Overall

SIZE = 40
WHOLE = ("top_k_overlap", "student_overlap_mass", "teacher_overlap_mass", "entropy_gap")
MASSES = ("student_support_mass", "teacher_support_mass")

SHARED = Outcome(teacher_share=0.2)


def measured(batch, objective, chunk_rows=7):
    return values(loss(batch, objective, chunk_rows=chunk_rows)[1])


def top_sets(logits_RV, k):
    return [set(row.argsort(descending=True)[:k].tolist()) for row in logits_RV]


def expected_overlap(student_RV, teacher_RV, k):
    """Share, the student's mass, the teacher's mass: means over the rows."""
    shared = [a & b for a, b in zip(top_sets(student_RV, k), top_sets(teacher_RV, k), strict=True)]
    masses = [
        np.mean([side[row, sorted(ids)].sum().item() for row, ids in enumerate(shared)])
        for side in (student_RV.softmax(-1), teacher_RV.softmax(-1))
    ]
    return [np.mean([len(ids) / k for ids in shared]), *masses]


def masses(student_RV, teacher_RV, sets):
    """Of both on the sets, means over the rows."""
    sides = (student_RV.softmax(-1), teacher_RV.softmax(-1))
    return [np.mean([side[row, sorted(ids)].sum().item() for row, ids in enumerate(sets)]) for side in sides]


def coarse_gap(student_RV, teacher_RV, sets):
    """Mean distance of the entropies over the sets and one bucket each."""
    entropies = []
    for side in (student_RV.softmax(-1), teacher_RV.softmax(-1)):
        kept = [[side[row, v].item() for v in sorted(ids)] for row, ids in enumerate(sets)]
        entropies.append([-sum(m * math.log(m) for m in [*own, 1 - sum(own)]) for own in kept])
    return np.mean([abs(p - q) for p, q in zip(*entropies, strict=True)])


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "recomputed"])
def test_a_full_comparison_reports_overlap_and_entropy_gap_on_both_paths(logits, make_batch, fused):
    student, teacher = logits(1, 30, SIZE), logits(2, 30, SIZE)
    batch = make_batch(student, teacher)
    if fused:
        batch = replace(batch, head=OutputHead(torch.eye(SIZE, dtype=torch.float64)))
    found = measured(batch, Objective("divergence"))
    gaps = [torch.distributions.Categorical(logits=side).entropy() for side in (student, teacher)]
    expected = [*expected_overlap(student, teacher, TOP), (gaps[0] - gaps[1]).abs().mean().item()]
    assert [found[name] for name in WHOLE] == pytest.approx(expected)
    assert [found[name] for name in MASSES] == pytest.approx(masses(student, teacher, top_sets(teacher, TOP)))


@pytest.mark.parametrize("support", ["teacher_top_k", "union_top_k"])
def test_the_teachers_own_top_k_is_held_to_as_many_of_the_students(logits, make_batch, support):
    student, teacher = logits(3, 30, SIZE), logits(4, 30, SIZE)
    found = measured(make_batch(student, teacher, k=5), Objective("divergence", support=support))
    assert [found[name] for name in WHOLE[:3]] == pytest.approx(expected_overlap(student, teacher, 5))


def test_what_the_student_named_alone_tells_no_overlap(logits, make_batch):
    batch = make_batch(logits(3, 9, SIZE), logits(4, 9, SIZE))
    batch = replace(batch, teacher=replace(batch.teacher, topk_ids_RK=None, topk_logprob_RK=None, topk_rest_R=None))
    found = measured(batch, Objective("divergence", support="student_top_k"))
    assert {"student_support_mass", "teacher_support_mass", "entropy_gap"} <= found.keys()
    assert not set(WHOLE[:3]) & found.keys()


@pytest.mark.parametrize("sends_entropy", [True, False])
@pytest.mark.parametrize("rest", ["tail", "renormalise"])
@pytest.mark.parametrize("support", ["teacher_top_k", "student_top_k", "union_top_k"])
def test_masses_and_entropies_on_a_set_are_those_of_its_tokens(logits, make_batch, support, rest, sends_entropy):
    student, teacher = logits(5, 20, SIZE), logits(6, 20, SIZE)
    sets = {"teacher_top_k": [top_sets(teacher, 4)], "student_top_k": [top_sets(student, 4)]}
    both = sets.get(support, [top_sets(teacher, 4), top_sets(student, 4)])
    ids = [set.union(*rows) for rows in zip(*both, strict=True)]
    batch = make_batch(student, teacher, k=4)
    entropies = [torch.distributions.Categorical(logits=side).entropy() for side in (student, teacher)]
    batch = replace(batch, teacher=replace(batch.teacher, entropy_R=entropies[1] if sends_entropy else None))
    found = measured(batch, Objective("divergence", support=support, rest=rest))
    assert [found[name] for name in MASSES] == pytest.approx(masses(student, teacher, ids))
    exact = (entropies[0] - entropies[1]).abs().mean().item()
    assert found["entropy_gap"] == pytest.approx(exact if sends_entropy else coarse_gap(student, teacher, ids))
    assert ("teacher_entropy" in found) == sends_entropy


@pytest.mark.parametrize(
    "objective",
    [Objective("policy_gradient"), Objective("divergence", support="sampled"), Objective("reward", outcome=SHARED)],
    ids=["policy_gradient", "sampled", "reward"],
)
def test_on_written_tokens_the_teachers_top_k_is_measured_and_not_learned_from(logits, make_batch, objective):
    student, teacher = logits(7, 20, SIZE), logits(8, 20, SIZE)
    batch = replace(make_batch(student, teacher, k=8), outcome_R=torch.ones(20).double())
    batch = replace(batch, teacher=replace(batch.teacher, hidden_RH=None, head=None, entropy_R=None))
    sets = top_sets(teacher, 8)
    expected = [*expected_overlap(student, teacher, 8), coarse_gap(student, teacher, sets)]
    found = measured(batch, objective)
    assert [found[name] for name in WHOLE] == pytest.approx(expected)
    assert [found[name] for name in MASSES] == pytest.approx(masses(student, teacher, sets))
    blind = replace(batch.teacher, topk_ids_RK=None, topk_logprob_RK=None, topk_rest_R=None)
    without = measured(replace(batch, teacher=blind), objective)
    assert without == {name: value for name, value in found.items() if name in without}
    assert found.keys() - without.keys() == {*WHOLE, *MASSES}


def test_a_top_k_with_gaps_is_measured_where_it_is_whole_and_takes_no_row_from_the_loss(logits, make_batch):
    student, teacher = logits(7, 6, SIZE), logits(8, 6, SIZE)
    batch = make_batch(student, teacher, k=4)
    batch.teacher.topk_logprob_RK[0], batch.teacher.topk_ids_RK[1] = torch.nan, -1
    batch.teacher.topk_ids_RK[2, 0] = SIZE + 3  # padding of the teacher's head, which the student lacks
    found = measured(batch, Objective("policy_gradient"))
    assert (found["tokens"], found["learned_fraction"]) == (6, 1)
    assert found["student_support_mass"] == pytest.approx(masses(student[3:], teacher[3:], top_sets(teacher[3:], 4))[0])
    first = top_sets(student, 4)[2] & set(batch.teacher.topk_ids_RK[2, 1:].tolist())
    rest = [len(a & b) / 4 for a, b in zip(top_sets(student, 4)[3:], top_sets(teacher, 4)[3:], strict=True)]
    assert found["top_k_overlap"] == pytest.approx(np.mean([len(first) / 3, *rest]))


def test_padding_and_tokens_without_probability_are_in_no_overlap(logits):
    student = logits(7, 2, 6)
    order = student.argsort(descending=True)
    ids = torch.stack([order[:, 0], order[:, 1], torch.full((2,), -1)], -1)
    found = overlap(student.log_softmax(-1), ids, torch.tensor([[-0.1, -torch.inf, 0.0]] * 2).double())
    assert found.share_R.tolist() == [1.0, 1.0]
    assert found.teacher_mass_R.tolist() == pytest.approx([math.exp(-0.1)] * 2)


@pytest.mark.parametrize("kind", ["supervised", "constant_penalty"])
def test_without_a_teacher_only_the_student_is_measured(logits, make_batch, kind):
    batch = replace(make_batch(logits(1, 9, 6), logits(2, 9, 6)), teacher=None)
    found = measured(batch, Objective(kind))
    assert {"student_entropy", "ratio_ess"} <= found.keys()
    assert not {*WHOLE, "teacher_entropy", "log_ratio", "teacher_support_mass"} & found.keys()


@settings(deadline=None)
@given(
    log_ratios=st.lists(st.floats(-8, 8), min_size=1, max_size=30), chunk_rows=st.integers(1, 7), cut=st.integers(0, 5)
)
def test_the_effective_sample_size_is_that_of_all_tokens_however_they_are_cut(
    logits, make_batch, log_ratios, chunk_rows, cut
):
    batch = make_batch(logits(1, len(log_ratios), 6), logits(2, len(log_ratios), 6))
    written_R = batch.hidden_RH.detach().log_softmax(-1).gather(-1, batch.token_ids_R[:, None]).squeeze(-1)
    batch = replace(batch, behaviour_logprob_R=written_R - torch.tensor(log_ratios).double())
    halves = [batch.take(slice(0, cut)), batch.take(slice(cut, None))]
    parts = [loss(half, Objective("policy_gradient"), chunk_rows=chunk_rows)[1] for half in halves]
    weights = np.exp(log_ratios)
    expected = weights.sum() ** 2 / (len(weights) * (weights**2).sum())
    assert values(merge(parts))["ratio_ess"] == pytest.approx(expected)


values_and_places = st.lists(st.tuples(st.floats(-9, 9, width=32), st.integers(0, 3000)), max_size=60)


@given(values_and_places, st.integers(0, 60))
def test_quantiles_of_merged_parts_are_those_of_all_values(rows, cut):
    def of(part):
        return ByPosition.of(torch.tensor([v for v, _ in part]), torch.tensor([p for _, p in part], dtype=torch.long))

    found = values(merge([{"log_ratio_p": of(rows[:cut])}, {"log_ratio_p": of(rows[cut:])}]))
    expected = {}
    for place, (first, last) in BINS.items():
        inside = [value for value, position in rows if first <= position <= last]
        for percent in QUANTILES if inside else ():
            expected[f"log_ratio_p{percent}/{place}"] = np.percentile(inside, percent, method="inverted_cdf")
    assert found == expected


@given(st.lists(st.floats(-9, 9, width=32), max_size=60), st.integers(0, 60))
def test_quantiles_and_the_largest_of_merged_parts_are_those_of_all_tokens(kls, cut):
    parts = [
        {"reverse_kl_": Overall.of(torch.tensor([*part, torch.inf, torch.nan]))} for part in (kls[:cut], kls[cut:])
    ]
    expected = {
        f"reverse_kl_p{percent}": np.percentile(kls, percent, method="inverted_cdf") for percent in OUTER if kls
    }
    assert values(merge(parts)) == expected | ({"reverse_kl_max": max(kls)} if kls else {})


@pytest.mark.parametrize("cut", [0, 3, 12])
def test_the_band_of_the_reverse_kl_is_of_the_tokens_whose_mean_it_surrounds(logits, make_batch, cut):
    """Exact values where both whole distributions are there, whatever the micro-batches, and else the sampled ones."""
    batch = make_batch(logits(1, 12, 9), logits(2, 12, 9))
    batch = replace(batch, position_R=torch.arange(12) * 40)  # none of the bins has them all
    halves = [batch.take(slice(0, cut)), batch.take(slice(cut, None))]

    def told(objective: Objective) -> list[float]:
        found = values(merge([loss(half, objective, chunk_rows=5)[1] for half in halves]))
        return [found["reverse_kl"], *(found[f"reverse_kl_{stat}"] for stat in ("p10", "p90", "max"))]

    def expected(kl_R: torch.Tensor) -> list[float]:
        ordered = kl_R.sort().values
        return [each.item() for each in (kl_R.mean(), ordered[1], ordered[10], ordered[11])]  # the 2nd and 11th of 12

    student, teacher = logits(1, 12, 9).log_softmax(-1), logits(2, 12, 9).log_softmax(-1)
    assert told(Objective("divergence")) == pytest.approx(expected((student.exp() * (student - teacher)).sum(-1)))
    written_R = student.gather(-1, batch.token_ids_R[:, None]).squeeze(-1)
    assert told(Objective("policy_gradient")) == pytest.approx(expected(written_R - batch.teacher.sampled_logprob_R))


def test_log_ratios_stand_in_the_bin_of_their_place_in_the_completion(logits, make_batch):
    batch = make_batch(logits(1, 6, 9), logits(2, 6, 9))
    places = torch.tensor([0, 15, 16, 63, 64, 70])
    batch = replace(batch, position_R=places)
    batch.teacher.valid_R[1], batch.teacher.sampled_logprob_R[5] = False, -torch.inf
    found = measured(batch, Objective("policy_gradient"), chunk_rows=2)
    written_R = batch.hidden_RH.detach().log_softmax(-1).gather(-1, batch.token_ids_R[:, None]).squeeze(-1)
    ratios = (batch.teacher.sampled_logprob_R - written_R).float().tolist()
    assert found["log_ratio_p50/0-15"] == ratios[0]  # the other is not scored
    assert found["log_ratio_p10/16-63"] == min(ratios[2:4])
    assert found["log_ratio_p90/16-63"] == max(ratios[2:4])
    assert found["log_ratio_p90/64-255"] == ratios[4]  # the other is infinite
    assert "log_ratio_p50/256-1023" not in found
