"""A skew of each text: its rule, what it is measured on, and that neither chunks nor gradients change it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tutelage.core.batch import TokenBatch
from tutelage.core.divergences import divergence
from tutelage.core.loss import learned_rows, loss
from tutelage.core.metrics import merge, values
from tutelage.core.objective import Objective
from tutelage.core.skew import GAPS, LEAST, skews
from tutelage.core.terms import Term, Where

ROLLOUTS = torch.tensor([0, 0, 0, 1, 1, 2, 3, 3, 3, 3])
FORWARD = Objective("divergence", divergence="skew_forward_kl", alpha=0.3, alpha_by_text=True)
REVERSE = replace(FORWARD, divergence="skew_reverse_kl")


@pytest.fixture
def batch(make_batch: Callable[..., TokenBatch], logits: Callable[..., Tensor]) -> TokenBatch:
    return replace(make_batch(logits(1, 10, 7), logits(2, 10, 7)), rollout_R=ROLLOUTS)


def gaps(batch: TokenBatch, objective: Objective) -> dict[int, float]:
    """m of each text, by hand."""
    assert batch.teacher is not None and batch.teacher.sampled_logprob_R is not None
    own_R = batch.hidden_RH.detach().log_softmax(-1).gather(-1, batch.token_ids_R[:, None]).squeeze(-1)
    sign = 1 if objective.divergence == "skew_forward_kl" else -1
    found = {}
    for text in ROLLOUTS.unique().tolist():
        q, p = (side[text == ROLLOUTS].tolist() for side in (batch.teacher.sampled_logprob_R, own_R))
        found[text] = sign * (math.exp(sum(q) / len(q)) - math.exp(sum(p) / len(p)))
    return found


def measured(batch: TokenBatch, objective: Objective, chunk_rows: int = 4) -> dict[str, float]:
    return values(loss(batch, objective, chunk_rows=chunk_rows)[1])


@pytest.mark.parametrize("objective", [FORWARD, REVERSE], ids=["forward", "reverse"])
def test_the_first_step_has_the_base_skew_and_tells_the_mean_gap(batch: TokenBatch, objective: Objective) -> None:
    found = measured(batch, objective)
    plain = measured(batch, replace(objective, alpha_by_text=False))
    own = gaps(batch, objective)
    assert found.pop(GAPS[objective.divergence]) == pytest.approx(sum(own.values()) / len(own))
    assert found == pytest.approx(plain)


@pytest.mark.parametrize("objective", [FORWARD, REVERSE], ids=["forward", "reverse"])
def test_later_steps_have_the_skew_of_each_text(batch: TokenBatch, objective: Objective) -> None:
    own = gaps(batch, objective)
    first = 1.2 * max(own.values())  # inside the bounds for that text, at the least for the others
    later = objective.at(1, first_gaps={GAPS[objective.divergence]: first})
    assert batch.teacher is not None and batch.teacher.hidden_RH is not None
    alphas = [min(0.3, max(0.01, 1 - 0.7 * first / (own[text] + 1e-5))) for text in ROLLOUTS.tolist()]
    assert len({round(alpha, 6) for alpha in alphas}) > 1
    leaf = batch.hidden_RH.detach().clone().requires_grad_()
    expected = torch.stack(
        [
            divergence(objective.divergence, leaf[row], batch.teacher.hidden_RH[row], alpha=alpha)
            for row, alpha in enumerate(alphas)
        ]
    ).sum()
    for chunk_rows in (3, 100):
        total, _ = loss(batch, later, chunk_rows=chunk_rows)
        torch.testing.assert_close(total, expected)
        gradient = torch.autograd.grad(total, batch.hidden_RH)[0]
        torch.testing.assert_close(gradient, torch.autograd.grad(expected, leaf, retain_graph=True)[0])


def test_a_text_is_measured_for_the_term_that_it_is_of_and_batches_add_up(batch: TokenBatch) -> None:
    assert batch.behaviour_logprob_R is not None
    batch = replace(batch, behaviour_logprob_R=batch.behaviour_logprob_R.masked_fill(ROLLOUTS > 1, torch.nan))
    terms = (Term(FORWARD, where=Where(text="other")), Term(REVERSE, where=Where(text="student")))
    objective = Objective("sum", terms=terms)
    parts = [loss(batch.take(rows), objective)[1] for rows in (ROLLOUTS <= 2, ROLLOUTS > 2)]
    found = values(merge(parts))
    forward, reverse = gaps(batch, FORWARD), gaps(batch, REVERSE)
    assert found["text_gap_forward"] == pytest.approx((forward[2] + forward[3]) / 2)
    assert found["text_gap_reverse"] == pytest.approx((reverse[0] + reverse[1]) / 2)


def test_a_token_without_a_log_probability_is_no_part_of_its_text(batch: TokenBatch) -> None:
    assert batch.teacher is not None and batch.teacher.sampled_logprob_R is not None
    batch.teacher.sampled_logprob_R[4] = torch.nan
    assert learned_rows(batch, FORWARD).tolist() == [row != 4 for row in range(10)]
    shorter = batch.take(torch.arange(10) != 4)
    assert measured(batch, FORWARD)["text_gap_forward"] == measured(shorter, FORWARD)["text_gap_forward"]


@given(gap=st.lists(st.floats(-1, 1), min_size=1, max_size=9), first=st.floats(-1, 1), alpha=st.floats(LEAST, 0.99))
def test_a_skew_lies_between_the_least_and_the_base(gap: list[float], first: float, alpha: float) -> None:
    found = skews(torch.tensor([*gap, -1e-5], dtype=torch.float64), first, alpha)
    assert ((found >= LEAST) & (found <= alpha)).all()


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"divergence": "jsd"}, "goes with a divergence of skew_forward_kl"),
        ({"kind": "policy_gradient", "divergence": "skew_forward_kl"}, "goes with a divergence of skew_forward_kl"),
        ({"divergence": "skew_reverse_kl", "alpha": 0.001}, "alpha is 0.001"),
    ],
)
def test_what_has_no_skew_is_refused(wanted: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Objective(**{"kind": "divergence", "alpha_by_text": True} | wanted)
