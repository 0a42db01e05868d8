"""A sum is its terms: each on its rows, at its steps, with its weight, over the rows that all of them can use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tutelage.core.ahead import ranks
from tutelage.core.batch import TokenBatch
from tutelage.core.credit import Credit
from tutelage.core.loss import learned_rows, loss
from tutelage.core.metrics import values
from tutelage.core.objective import Objective
from tutelage.core.targets import Target
from tutelage.core.terms import Term, Where

ROWS, SIZE = 12, 7
K1 = Objective("policy_gradient")
FULL = Objective("divergence", divergence="reverse_kl")
TOP = Objective("divergence", divergence="forward_kl", support="teacher_top_k", rest="truncate")
SFT = Objective("supervised")
AHEAD = Objective("policy_gradient", credit=Credit(steps=None, own=False, length_normalised=True))
Makes = Callable[..., TokenBatch]


@pytest.fixture
def batch(make_batch: Makes, logits: Callable[..., Tensor]) -> TokenBatch:
    made = make_batch(logits(1, ROWS, SIZE), logits(2, ROWS, SIZE))
    assert made.behaviour_logprob_R is not None
    behaviour_R = made.behaviour_logprob_R.masked_fill(torch.arange(ROWS) >= 8, torch.nan)
    return replace(made, behaviour_logprob_R=behaviour_R, rollout_R=torch.arange(ROWS) // 4)


def outcome(batch: TokenBatch, objective: Objective, chunk_rows: int = 5) -> tuple[Tensor, Tensor]:
    total, _ = loss(batch, objective, chunk_rows=chunk_rows)
    return total.detach(), torch.autograd.grad(total, batch.hidden_RH)[0]


@settings(max_examples=25, deadline=None)
@given(weights=st.lists(st.floats(0.01, 10), min_size=4, max_size=4))
def test_a_sum_is_the_weighted_sum_of_its_terms(
    make_batch: Makes, logits: Callable[..., Tensor], weights: list[float]
) -> None:
    batch = replace(make_batch(logits(1, ROWS, SIZE), logits(2, ROWS, SIZE)), rollout_R=torch.arange(ROWS) // 4)
    objectives = (K1, FULL, TOP, AHEAD)
    terms = tuple(map(Term, objectives, weights))
    total, gradient = outcome(batch, Objective("sum", terms=terms))
    alone = [outcome(batch, objective) for objective in objectives]
    torch.testing.assert_close(total, sum(w * value for w, (value, _) in zip(weights, alone, strict=True)))
    torch.testing.assert_close(gradient, sum(w * each for w, (_, each) in zip(weights, alone, strict=True)))


def log_ratio(batch: TokenBatch) -> Tensor:
    assert batch.teacher is not None
    assert batch.teacher.sampled_logprob_R is not None
    return (
        batch.teacher.sampled_logprob_R - batch.hidden_RH.log_softmax(-1).gather(-1, batch.token_ids_R[:, None])[:, 0]
    )


def student_entropy(batch: TokenBatch) -> Tensor:
    logp_RV = batch.hidden_RH.log_softmax(-1)
    return -(logp_RV.exp() * logp_RV).sum(-1)


def more_open(batch: TokenBatch) -> Tensor:
    """How many of the four rows of its text have more entropy."""
    by_text = student_entropy(batch).view(-1, 4)
    return (by_text[:, :, None] < by_text[:, None, :]).sum(-1).flatten()


CONDITIONS: dict[str, tuple[Where, Callable[[TokenBatch], Tensor]]] = {
    "all": (Where(), lambda b: torch.ones(ROWS, dtype=torch.bool)),
    "own text": (Where(text="student"), lambda b: torch.arange(ROWS) < 8),
    "other text": (Where(text="other"), lambda b: torch.arange(ROWS) >= 8),
    "favoured": (Where(log_ratio_above=0.0), lambda b: log_ratio(b) > 0),
    "not favoured": (Where(log_ratio_up_to=0.0), lambda b: log_ratio(b) <= 0),
    "between": (Where(log_ratio_above=-1.0, log_ratio_up_to=1.0), lambda b: (log_ratio(b) > -1) & (log_ratio(b) <= 1)),
    "open teacher": (Where(teacher_entropy_above=0.8), lambda b: b.teacher.entropy_R > 0.8),  # pyright: ignore
    "open student": (Where(student_entropy_above=0.8), lambda b: student_entropy(b) > 0.8),
    "most open of each text": (Where(student_entropy_top=0.5), lambda b: more_open(b) < 2),
    "both": (Where(text="student", log_ratio_above=0.0), lambda b: (torch.arange(ROWS) < 8) & (log_ratio(b) > 0)),
}


@pytest.mark.parametrize("objective", [K1, FULL, TOP, SFT], ids=["k1", "full", "top", "sft"])
@pytest.mark.parametrize("name", CONDITIONS)
def test_a_term_adds_nothing_outside_its_rows_and_all_of_it_inside(
    batch: TokenBatch, objective: Objective, name: str
) -> None:
    where, expected = CONDITIONS[name]
    inside_R = expected(batch)
    assert name == "all" or 0 < int(inside_R.sum()) < ROWS
    whole = Objective("sum", terms=(Term(objective, where=where),))
    total, gradient = outcome(batch, whole)
    alone, alone_gradient = outcome(replace(batch, mask_R=inside_R), objective)
    torch.testing.assert_close(total, alone)
    torch.testing.assert_close(gradient, alone_gradient)
    assert int(learned_rows(batch, whole).sum()) == ROWS


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(st.lists(st.floats(0, 5), min_size=1, max_size=9), min_size=1, max_size=5))
def test_a_rank_is_the_share_of_the_text_that_has_more(texts: list[list[float]]) -> None:
    """So below a share are as many rows as that share of the text, rounded up; of equal ones the first."""
    values = torch.tensor([value for text in texts for value in text], dtype=torch.float64)
    got = ranks(values, torch.tensor([i for i, text in enumerate(texts) for _ in text])).tolist()
    expected = [
        sum(other > value or (other == value and j < i) for j, other in enumerate(text)) / len(text)
        for text in texts
        for i, value in enumerate(text)
    ]
    assert got == pytest.approx(expected)


def test_a_share_of_a_text_is_above_0_and_below_1() -> None:
    with pytest.raises(ValueError, match="student_entropy_top is 1"):
        Where(student_entropy_top=1.0)


def test_a_row_that_one_term_cannot_use_is_learned_from_by_none(batch: TokenBatch) -> None:
    assert batch.teacher is not None
    assert batch.teacher.topk_logprob_RK is not None
    gap = batch.teacher.topk_logprob_RK.clone()
    gap[3] = torch.nan
    batch = replace(batch, teacher=replace(batch.teacher, topk_logprob_RK=gap))
    both = Objective("sum", terms=(Term(K1), Term(TOP)))
    total, gradient = outcome(batch, both)
    assert total.isfinite()
    assert not learned_rows(batch, both)[3]
    assert (gradient[3] == 0).all()


def test_a_row_where_a_term_is_infinite_counts_only_inside_that_term(batch: TokenBatch) -> None:
    assert batch.teacher is not None
    assert batch.teacher.sampled_logprob_R is not None
    forbidden = batch.teacher.sampled_logprob_R.clone()
    forbidden[0] = -torch.inf
    batch = replace(batch, teacher=replace(batch.teacher, sampled_logprob_R=forbidden))
    for where, share in ((Where(), 1 / ROWS), (Where(log_ratio_above=-50.0), 0.0)):
        total, measured = loss(batch, Objective("sum", terms=(Term(K1, where=where), Term(SFT))))
        assert total.isfinite()
        assert values(measured)["infinite_fraction"] == pytest.approx(share)


def test_a_term_acts_from_its_step_until_its_last() -> None:
    terms = (Term(K1, until_step=3), Term(SFT, from_step=2), Term(FULL, from_step=1, until_step=2))
    acting = [[term.objective for term in Objective("sum", terms=terms).at(step).terms] for step in range(4)]
    assert acting == [[K1], [K1, FULL], [K1, SFT], [SFT]]


def test_the_clips_of_a_sum_are_those_of_each_term(batch: TokenBatch) -> None:
    clipped = replace(FULL, signal_clip=0.5)
    total, gradient = outcome(batch, Objective("sum", terms=(Term(FULL), Term(SFT)), signal_clip=0.5))
    alone = [outcome(batch, each) for each in (clipped, SFT)]
    torch.testing.assert_close(total, alone[0][0] + alone[1][0])
    torch.testing.assert_close(gradient, alone[0][1] + alone[1][1])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Objective("sum"), "at least one term"),
        (lambda: Objective("supervised", terms=(Term(K1),)), "kind sum"),
        (lambda: Objective("sum", terms=(Term(Objective("sum", terms=(Term(K1),))),)), "a term is no sum"),
        (lambda: Objective("sum", terms=(Term(AHEAD), Term(AHEAD))), "at most one"),
        (
            lambda: Objective(
                "sum", terms=(Term(replace(FULL, target=Target("mixture", 0.4, final_weight=1.0, adaptive=True))),)
            ),
            "as no term of a sum",
        ),
        (lambda: Term(K1, weight=0.0), "above 0"),
        (lambda: Term(K1, from_step=2, until_step=2), "not above from_step"),
    ],
)
def test_what_is_no_sum_is_refused(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


@settings(deadline=None)
@given(weight=st.floats(0.1, 5), final=st.floats(0.1, 5), over=st.integers(1, 50), step=st.integers(0, 100))
def test_a_weight_moves_linearly_and_stays(weight: float, final: float, over: int, step: int) -> None:
    moving = Objective("sum", terms=(Term(SFT, weight, final_weight=final, over_steps=over),))
    [term] = moving.at(step).terms
    assert term.weight == pytest.approx(weight + (final - weight) * min(step, over) / over)
    assert moving.at(step).at(step + 1) == moving.at(step)


@pytest.mark.parametrize("own", [{"final_weight": 2.0}, {"over_steps": 3}, {"final_weight": 2.0, "over_steps": 0}])
def test_a_weight_that_moves_says_where_to_and_for_how_long(own: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="go together"):
        Term(SFT, **own)
