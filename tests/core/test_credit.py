"""Credit over whole rollouts: returns by brute force, and what may not change them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tutelage.core.credit import Credit, credited
from tutelage.core.estimators import reinforce
from tutelage.core.loss import learned_rows, loss
from tutelage.core.objective import Objective
from tutelage.core.terms import Term

few = settings(max_examples=60, deadline=None)
seeds = st.integers(0, 2**31 - 1)
rollouts = st.lists(st.lists(st.floats(-9, 9), min_size=1, max_size=9), min_size=1, max_size=5)
kinds = st.builds(
    Credit,
    steps=st.none() | st.integers(1, 12),
    discount=st.floats(0.05, 1),
    length_normalised=st.booleans(),
    floor=st.none() | st.floats(-5, -0.1),
) | st.builds(Credit, steps=st.none() | st.integers(2, 9), length_normalised=st.booleans(), own=st.just(False))


def flat(rows: list[list[float]]) -> tuple[Tensor, Tensor]:
    index = [i for i, row in enumerate(rows) for _ in row]
    return torch.tensor([value for row in rows for value in row], dtype=torch.float64), torch.tensor(index)


def by_definition(rows: list[list[float]], credit: Credit) -> list[float]:
    got = []
    for row in rows:
        own = [value if credit.floor is None else max(value, credit.floor) for value in row]
        for t in range(len(own)):
            ahead = own[t:] if credit.steps is None else own[t : t + credit.steps]
            terms = [credit.discount**k * value for k, value in enumerate(ahead)][0 if credit.own else 1 :]
            got.append(sum(terms) / max(1, len(terms)) if credit.length_normalised else sum(terms))
    return got


@few
@given(rows=rollouts, credit=kinds)
def test_a_return_is_its_definition_in_each_rollout(rows, credit):
    assert credited(*flat(rows), credit).tolist() == pytest.approx(by_definition(rows, credit), abs=1e-9)


@few
@given(rows=rollouts, credit=kinds, data=st.data())
def test_the_order_of_rollouts_and_their_copies_change_no_credit(rows, credit, data):
    order = data.draw(st.permutations(range(len(rows))))
    cut = credited(*flat(rows), credit).split([len(row) for row in rows])
    moved = credited(*flat([rows[i] for i in order]), credit)
    assert torch.allclose(moved, torch.cat([cut[i] for i in order]), atol=1e-12)
    assert torch.allclose(credited(*flat(rows + rows), credit), torch.cat([*cut, *cut]), atol=1e-12)


def test_one_step_is_the_token_and_enough_steps_are_the_return_to_go():
    values, index = flat([[1.0, -2.0, 3.0], [0.5]])
    assert torch.equal(credited(values, None, Credit()), values)
    assert torch.equal(credited(values, index, Credit(steps=1)), values)
    assert torch.equal(credited(values, index, Credit(steps=9)), credited(values, index, Credit(steps=None)))
    assert credited(values, index, Credit(steps=None)).tolist() == [2.0, 1.0, 3.0, 0.5]


def test_a_forbidden_token_makes_what_leads_to_it_infinite_and_a_floor_does_not():
    values, index = flat([[1.0, -math.inf, 2.0], [3.0]])
    assert credited(values, index, Credit(steps=None)).tolist() == [-math.inf, -math.inf, 2.0, 3.0]
    assert credited(values, index, Credit(steps=2, floor=-4.0)).tolist() == [-3.0, -2.0, 2.0, 3.0]


def with_rollouts(batch, *lengths: int):
    return replace(batch, rollout_R=torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths)))


def loss_and_gradient(batch, objective, **options):
    fresh = replace(batch, hidden_RH=batch.hidden_RH.detach().clone().requires_grad_())
    total, _ = loss(fresh, objective, **options)
    return total.detach(), torch.autograd.grad(total, fresh.hidden_RH)[0]


RETURN = Objective("policy_gradient", credit=Credit(steps=None, discount=0.9))


@pytest.mark.parametrize("chunk_rows", [1, 3, 1024])
@pytest.mark.parametrize("signal_clip", [None, 0.5])
def test_the_loss_has_the_gradient_of_reinforce_with_the_return(logits, make_batch, chunk_rows, signal_clip):
    batch = with_rollouts(make_batch(logits(1, 9, 7), logits(2, 9, 7)), 4, 1, 4)
    got = loss_and_gradient(batch, replace(RETURN, signal_clip=signal_clip), chunk_rows=chunk_rows)[1]
    leaf = batch.hidden_RH.detach().clone().requires_grad_()
    logp = leaf.log_softmax(-1).gather(-1, batch.token_ids_R[:, None]).squeeze(-1)
    own = (batch.teacher.sampled_logprob_R - logp).detach()
    own = own if signal_clip is None else own.clamp(-signal_clip, signal_clip)
    exact = reinforce(credited(own, batch.rollout_R, RETURN.credit), logp).sum()
    assert torch.allclose(got, torch.autograd.grad(exact, leaf)[0], atol=1e-12)


def test_masked_rows_earn_nothing_and_an_unscored_row_takes_its_rollout_out(logits, make_batch):
    batch = with_rollouts(make_batch(logits(1, 9, 7), logits(2, 9, 7)), 4, 1, 4)
    batch.mask_R[1] = False
    batch.teacher.valid_R[1] = False  # masked: nobody needs its score
    batch.teacher.valid_R[7] = False
    assert learned_rows(batch, RETURN).tolist() == [True, False, True, True, True] + [False] * 4
    assert learned_rows(batch, Objective("policy_gradient")).sum() == 7
    gradient = loss_and_gradient(batch, RETURN)[1]
    kept = batch.take(torch.tensor([0, 2, 3, 4]))
    assert torch.allclose(gradient[[0, 2, 3, 4]], loss_and_gradient(kept, RETURN)[1], atol=1e-12)
    assert gradient[[1, 5, 6, 7, 8]].abs().max() == 0


FOLLOWING = Objective("policy_gradient", credit=Credit(steps=None, own=False))
SEQUENCE = {
    "return to go": Objective("policy_gradient", credit=Credit(steps=None)),
    "MiniLLM's split": Objective("sum", terms=(Term(Objective("divergence")), Term(FOLLOWING))),
}


@pytest.mark.parametrize("objective", SEQUENCE.values(), ids=SEQUENCE.keys())
@few
@given(seed=seeds)
def test_in_expectation_a_return_descends_the_reverse_kl_of_the_sequence(logits, make_batch, objective, seed):
    """Two tokens of three words: every text once, weighted by its probability, against the KL of whole texts."""
    first, second = logits(seed, 1, 3), logits(seed + 1, 3, 3)  # the second token's logits depend on the first
    q_first, q_second = logits(seed + 2, 1, 3).log_softmax(-1), logits(seed + 3, 3, 3).log_softmax(-1)
    one, other = first.clone().requires_grad_(), second.clone().requires_grad_()
    p_text = (one.log_softmax(-1).T + other.log_softmax(-1)).flatten()
    q_text = (q_first.T + q_second).flatten()
    exact = torch.autograd.grad((p_text.exp() * (p_text - q_text)).sum(), [one, other])
    a, b = torch.arange(3).repeat_interleave(3), torch.arange(3).repeat(3)
    student = torch.stack([first.expand(9, 3), second[a]], 1).flatten(0, 1)
    teacher = torch.stack([q_first.expand(9, 3), q_second[a]], 1).flatten(0, 1)
    batch = with_rollouts(make_batch(student, teacher), *[2] * 9)
    ids = torch.stack([a, b], 1).flatten()
    sampled = teacher.gather(-1, ids[:, None]).squeeze(-1)
    batch = replace(batch, token_ids_R=ids, teacher=replace(batch.teacher, sampled_logprob_R=sampled))
    gradient = loss_and_gradient(batch, objective)[1]
    weighted = gradient.view(9, 2, 3) * p_text.detach().exp()[:, None, None]
    assert torch.allclose(weighted[:, 0].sum(0), exact[0][0], atol=1e-10)
    assert torch.allclose(torch.zeros(3, 3).double().index_add(0, a, weighted[:, 1]), exact[1], atol=1e-10)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"discount": 0.0}, "discount is 0.0"),
        ({"floor": 0.5}, "floor is 0.5"),
        ({"steps": None, "baseline": True}, "takes from a return what follows"),
    ],
)
def test_an_impossible_credit_is_refused_in_one_sentence(fields, words):
    with pytest.raises(ValueError, match=words):
        Credit(**fields)


def test_a_return_without_rollouts_is_refused(logits, make_batch):
    with pytest.raises(ValueError, match="the objective needs rollout_R"):
        loss(make_batch(logits(1, 3, 7), logits(2, 3, 7)), RETURN)


@few
@given(seed=seeds)
def test_the_baseline_makes_the_mean_advantage_zero_and_leaves_the_mean_gradient(logits, make_batch, seed):
    """Every token once, weighted by the student's probability of it; clipped signals keep the identity."""
    student, teacher = logits(seed, 1, 7), logits(seed + 1, 1, 7)
    batch = make_batch(student.expand(7, 7), teacher.expand(7, 7))
    sampled = replace(batch.teacher, sampled_logprob_R=teacher.log_softmax(-1)[0])
    batch = replace(batch, token_ids_R=torch.arange(7), teacher=sampled)
    p = student.softmax(-1)[0]
    for signal_clip in (None, 0.7):
        plain = Objective("policy_gradient", signal_clip=signal_clip)
        based = replace(plain, credit=Credit(baseline=True))
        gradients = [loss_and_gradient(batch, objective)[1] * p[:, None] for objective in (plain, based)]
        assert torch.allclose(gradients[0].sum(0), gradients[1].sum(0), atol=1e-12)
        assert not torch.allclose(gradients[0], gradients[1])
        # a row's gradient is A (p - onehot): what it puts on its own token tells A
        advantages = loss_and_gradient(batch, based)[1].diagonal() / (p - 1)
        assert torch.allclose((p * advantages).sum(), torch.zeros(()).double(), atol=1e-12)


def test_where_the_teacher_forbids_a_token_no_baseline_is_finite_and_no_row_is_nan(logits, make_batch):
    """Row 1 wrote it: -inf and inf meet there."""
    batch = make_batch(logits(1, 3, 7), logits(2, 3, 7))
    bias = torch.zeros(7, dtype=torch.float64)
    bias[4] = -torch.inf
    batch = replace(batch, teacher=replace(batch.teacher, head=replace(batch.teacher.head, bias_V=bias)))
    batch.token_ids_R[:] = torch.tensor([0, 4, 6])
    objective = Objective("policy_gradient", credit=Credit(baseline=True))
    assert loss(batch, objective)[1]["infinite_fraction"] == (3, 3)
    total, gradient = loss_and_gradient(batch, objective)
    assert total == 0
    assert gradient.abs().max() == 0
