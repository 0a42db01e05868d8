"""Sums and counts: merged in any grouping they say the same, and each has the value of its definition."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.core.divergences import divergence
from tutelage.core.loss import loss
from tutelage.core.metrics import Metric, merge, values
from tutelage.core.objective import Objective

parts = st.lists(
    st.dictionaries(
        st.sampled_from(["loss", "tokens", "ratio_max", "reverse_kl"]),
        st.builds(Metric, st.integers(0, 99), st.integers(1, 9)),
    ),
    max_size=5,
)


@settings(deadline=None)
@given(one=parts, other=parts)
def test_merging_does_not_depend_on_the_grouping(one, other):
    assert merge([merge(one), merge(other)]) == merge(one + other)


def test_means_totals_and_maxima_are_told_apart():
    merged = merge(
        [
            {"loss": Metric(2.0, 4), "tokens": Metric(4, 1), "ratio_max": Metric(3.0, 4), "log_ratio": Metric(0.0, 0)},
            {"loss": Metric(4.0, 2), "tokens": Metric(2, 1), "ratio_max": Metric(1.5, 2)},
        ]
    )
    assert values(merged) == {"loss": 1.0, "tokens": 6.0, "ratio_max": 3.0}


def test_a_full_comparison_measures_exactly(logits, make_batch):
    student, teacher = logits(1, 8, 6), logits(2, 8, 6)
    measured = values(loss(make_batch(student, teacher), Objective("divergence"), chunk_rows=3)[1])
    for kind in ("reverse_kl", "forward_kl"):
        assert measured[kind] == pytest.approx(divergence(kind, student, teacher).mean().item())
    for name, side in (("student_entropy", student), ("teacher_entropy", teacher)):
        exact = torch.distributions.Categorical(logits=side).entropy().mean().item()
        assert measured[name] == pytest.approx(exact)
    assert measured["loss"] == pytest.approx(measured["reverse_kl"])
    assert (measured["tokens"], measured["learned_fraction"], measured["infinite_fraction"]) == (8, 1.0, 0.0)


def test_without_the_whole_distribution_reverse_kl_is_the_mean_over_written_tokens(logits, make_batch):
    batch = make_batch(logits(1, 8, 6), logits(2, 8, 6))
    batch = replace(batch, teacher=replace(batch.teacher, hidden_RH=None, head=None))
    measured = values(loss(batch, Objective("policy_gradient"))[1])
    p = batch.hidden_RH.log_softmax(-1).gather(-1, batch.token_ids_R[:, None]).squeeze(-1)
    assert measured["reverse_kl"] == pytest.approx((p - batch.teacher.sampled_logprob_R).mean().item())
    assert measured["log_ratio"] == -measured["reverse_kl"]
    assert measured["teacher_entropy"] == pytest.approx(batch.teacher.entropy_R.mean().item())
    assert "forward_kl" not in measured


def test_clip_fractions_count_the_tokens_that_were_touched(logits, make_batch):
    batch = make_batch(torch.zeros(4, 2).double(), torch.zeros(4, 2).double(), k=1)
    half = torch.tensor(0.5).log()
    batch.teacher.sampled_logprob_R[:] = half + torch.tensor([0.0, 1.0, -3.0, -torch.inf])
    batch.behaviour_logprob_R[:] = half - torch.tensor([0.0, 0.5, 2.0, torch.nan])
    objective = Objective("policy_gradient", signal_clip=2.0, ratio_clip=(0.0, 3.0))
    measured = loss(batch, objective)[1]
    assert measured["signal_clip_fraction"] == (2, 4)
    assert measured["ratio_clip_fraction"] == (1, 3)
    assert measured["ratio_max"][0] == pytest.approx(torch.tensor(2.0).exp().item())
    assert measured["ratio"][-1] == 3


def test_no_learned_row_yields_no_means_and_no_error(logits, make_batch):
    batch = make_batch(logits(1, 4, 6), logits(2, 4, 6))
    batch.mask_R[:] = False
    total, measured = loss(batch, Objective("divergence"))
    total.backward()
    assert total.item() == 0
    assert values(measured) == {"tokens": 0}
    assert batch.hidden_RH.grad.abs().max() == 0
