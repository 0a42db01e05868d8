"""Advantages over rewards of rollouts, and the surrogate that carries them to the tokens."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tutelage.core.loss import learned_rows, loss
from tutelage.core.metrics import values
from tutelage.core.objective import Objective
from tutelage.core.outcome import ADVANTAGES, FAR, Outcome, advantages, equal_groups, surrogate

KINDS = sorted(ADVANTAGES)
every_kind = pytest.mark.parametrize("kind", KINDS)
# Steps of a sixteenth are exact in float64, whatever is added to them below.
reward = st.integers(-32, 32).map(lambda n: n / 16)
steps = st.lists(st.tuples(reward, st.integers(0, 3)), min_size=1, max_size=24)
Step = list[tuple[float, int]]


def tensors(step: Step) -> tuple[Tensor, Tensor]:
    rewards, groups = zip(*step, strict=True)
    return torch.tensor(rewards, dtype=torch.float64), torch.tensor(groups)


@every_kind
@settings(deadline=None)
@given(step=steps, shift=st.integers(-1000, 1000))
def test_what_is_added_to_every_reward_changes_nothing(kind: str, step: Step, shift: int) -> None:
    reward_B, group_B = tensors(step)
    torch.testing.assert_close(advantages(kind, reward_B + shift, group_B), advantages(kind, reward_B, group_B))


@every_kind
@settings(deadline=None)
@given(step=steps, scale=st.floats(0.5, 100))
def test_a_scale_passes_through_or_cancels(kind: str, step: Step, scale: float) -> None:
    reward_B, group_B = tensors(step)
    expected_B = advantages(kind, reward_B, group_B) * (1 if kind.endswith("normalised") else scale)
    torch.testing.assert_close(advantages(kind, reward_B * scale, group_B), expected_B)


@every_kind
@settings(deadline=None)
@given(step=steps, seed=st.integers(0, 99))
def test_the_order_of_rollouts_does_not_matter(kind: str, step: Step, seed: int) -> None:
    reward_B, group_B = tensors(step)
    order = torch.randperm(len(reward_B), generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(
        advantages(kind, reward_B, group_B)[order], advantages(kind, reward_B[order], group_B[order])
    )


@every_kind
@settings(deadline=None)
@given(step=steps, lost=st.sets(st.integers(0, 23), min_size=1))
def test_rewards_that_were_not_given_count_nowhere(kind: str, step: Step, lost: set[int]) -> None:
    reward_B, group_B = tensors(step)
    kept_B = torch.tensor([index not in lost for index in range(len(step))])
    found_B = advantages(kind, reward_B.masked_fill(~kept_B, torch.nan), group_B)
    assert found_B[~kept_B].isnan().all()
    torch.testing.assert_close(found_B[kept_B], advantages(kind, reward_B[kept_B], group_B[kept_B]))
    assert equal_groups(reward_B.masked_fill(~kept_B, torch.nan), group_B).tolist() == (
        equal_groups(reward_B[kept_B], group_B[kept_B]).tolist()
    )


@every_kind
@settings(deadline=None)
@given(value=st.floats(-1e6, 1e6), sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_equal_rewards_give_exactly_zero_and_are_counted(kind: str, value: float, sizes: list[int]) -> None:
    group_B = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    reward_B = torch.full((len(group_B),), value, dtype=torch.float64)
    assert (advantages(kind, reward_B, group_B) == 0).all()
    assert equal_groups(reward_B, group_B).all()


@settings(deadline=None)
@given(step=steps)
def test_group_advantages_sum_to_zero_in_each_group(step: Step) -> None:
    reward_B, group_B = tensors(step)
    for kind in ("group_normalised", "group_centred", "leave_one_out"):
        for group in group_B.unique():
            assert advantages(kind, reward_B, group_B)[group_B == group].sum().abs() < 1e-9


def test_the_numbers_of_a_group_of_four() -> None:
    reward_B, group_B = torch.tensor([1.0, 0.0, 0.0, 0.0]), torch.zeros(4, dtype=torch.long)
    assert advantages("group_normalised", reward_B, group_B).tolist() == pytest.approx([1.5, -0.5, -0.5, -0.5])
    assert advantages("group_centred", reward_B, group_B).tolist() == pytest.approx([0.75, -0.25, -0.25, -0.25])
    assert advantages("leave_one_out", reward_B, group_B).tolist() == pytest.approx([1, -1 / 3, -1 / 3, -1 / 3])
    two_groups_B = torch.tensor([0, 0, 1, 1])
    assert advantages("batch_normalised", reward_B, two_groups_B).tolist() == pytest.approx([1.5, -0.5, -0.5, -0.5])


def test_nothing_but_rewards_and_groups_is_taken() -> None:
    reward_B, group_B = torch.zeros(2), torch.zeros(2, dtype=torch.long)
    with pytest.raises(ValueError, match="unknown advantage 'best'; known are group_normalised"):
        advantages("best", reward_B, group_B)
    with pytest.raises(ValueError, match="one finite reward and one group"):
        advantages("group_centred", torch.tensor([torch.inf, 0.0]), group_B)
    with pytest.raises(ValueError, match="one finite reward and one group"):
        advantages("group_centred", reward_B, group_B[:1])


def gradient(advantage: float, logp: float, behaviour: float, teacher: float | None, outcome: Outcome) -> float:
    logp_R = torch.tensor([logp], dtype=torch.float64, requires_grad=True)
    teacher_R = None if teacher is None else torch.tensor([teacher], dtype=torch.float64)
    behaviour_R = torch.tensor([behaviour], dtype=torch.float64)
    value_R = surrogate(torch.tensor([advantage], dtype=torch.float64), logp_R, behaviour_R, teacher_R, outcome)
    return torch.autograd.grad(value_R.sum(), logp_R)[0].item()


@settings(deadline=None)
@given(advantage=st.floats(-3, 3), logp=st.floats(-8, -0.01), share=st.floats(0, 0.9))
def test_on_fresh_text_of_a_student_like_its_teacher_it_is_reinforce(
    advantage: float, logp: float, share: float
) -> None:
    assert gradient(advantage, logp, logp, logp, Outcome(teacher_share=share)) == pytest.approx(-advantage)


@settings(deadline=None)
@given(
    logp=st.floats(-8, -0.01),
    behaviour=st.floats(-8, -0.01),
    advantage=st.floats(0.1, 3),
    sign=st.sampled_from([-1, 1]),
)
def test_the_clip_stops_a_ratio_that_has_gone_far_enough(
    logp: float, behaviour: float, advantage: float, sign: int
) -> None:
    outcome, ratio = Outcome(clip_below=0.2, clip_above=0.3), torch.tensor(logp - behaviour, dtype=torch.float64).exp()
    stopped = ratio > 1.3 if sign > 0 else ratio < 0.8
    expected = 0.0 if stopped else -sign * advantage * ratio.item()
    assert gradient(sign * advantage, logp, behaviour, None, outcome) == pytest.approx(expected)


@settings(deadline=None)
@given(logp=st.floats(-8, -0.01), behaviour=st.floats(-8, -0.01), teacher=st.floats(-8, -0.01))
def test_a_share_of_the_teacher_moves_the_trust_region_to_it(logp: float, behaviour: float, teacher: float) -> None:
    """At share a the ratio is p / (mu^(1 - a) q^a); without a share the teacher is not heard."""
    unclipped = Outcome(teacher_share=0.25, clip_above=1e9)
    ratio = torch.tensor(logp - 0.75 * behaviour - 0.25 * teacher, dtype=torch.float64).exp().item()
    assert gradient(1.0, logp, behaviour, teacher, unclipped) == pytest.approx(-ratio)
    assert gradient(1.0, logp, behaviour, teacher, Outcome()) == gradient(1.0, logp, behaviour, None, Outcome())


@settings(deadline=None)
@given(logp=st.floats(-8, -0.01), behaviour=st.floats(-8, -0.01), advantage=st.floats(-3, 3))
def test_without_a_share_of_the_teacher_it_is_grpo(logp: float, behaviour: float, advantage: float) -> None:
    """TRRD at a = 1: PPO's clipped ratio, whose gradient is rho A inside the clip and on its near side."""
    ratio = torch.tensor(logp - behaviour, dtype=torch.float64).exp().item()
    stopped = ratio > 1.2 if advantage > 0 else ratio < 0.8
    expected = 0.0 if stopped else -advantage * ratio
    assert gradient(advantage, logp, behaviour, -1.0, Outcome(teacher_share=0.0)) == pytest.approx(expected)


@settings(deadline=None)
@given(logp=st.floats(-12, -0.01), advantage=st.floats(-3, 3))
def test_text_that_no_student_wrote_is_shaped(logp: float, advantage: float) -> None:
    p = torch.tensor(logp, dtype=torch.float64).exp().item()
    expected = -advantage * p * 0.1 / (p + 0.1) ** 2
    assert gradient(advantage, logp, float("nan"), None, Outcome(shaping=0.1)) == pytest.approx(expected)


@pytest.mark.parametrize("advantage", [-1.0, 1.0])
def test_what_the_teacher_forbids_overflows_nothing(advantage: float) -> None:
    found = gradient(advantage, -1.0, -1.0, float("-inf"), Outcome(teacher_share=0.5))
    assert abs(found) <= torch.tensor(FAR).exp()


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ({"weight": 0}, "weight"),
        ({"clip_below": 1}, "clip"),
        ({"teacher_share": 1}, "share"),
        ({"shaping": 0}, "shaping"),
    ],
)
def test_what_is_out_of_range_is_refused(given_: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Outcome(**given_)


def step_of(make_batch, logits):
    batch = make_batch(logits(1, 12, 7), logits(2, 12, 7))
    return replace(batch, outcome_R=torch.linspace(-1, 1, 12, dtype=torch.float64))


def derived(batch, objective: Objective, chunk_rows: int = 1024) -> tuple[Tensor, Tensor]:
    fresh = replace(batch, hidden_RH=batch.hidden_RH.detach().clone().requires_grad_())
    total, _ = loss(fresh, objective, chunk_rows=chunk_rows)
    return total.detach(), torch.autograd.grad(total, fresh.hidden_RH)[0]


def test_rewards_beside_a_teacher_are_the_sum_of_both(make_batch, logits) -> None:
    batch = step_of(make_batch, logits)
    teacher = Objective("divergence", support="sampled")
    alone, both = Objective("reward", outcome=Outcome()), replace(teacher, outcome=Outcome(weight=3.0))
    (first, first_grad), (second, second_grad) = derived(batch, teacher), derived(batch, alone)
    total, total_grad = derived(batch, both)
    torch.testing.assert_close(total, first + 3 * second)
    torch.testing.assert_close(total_grad, first_grad + 3 * second_grad)


@pytest.mark.parametrize("share", [0.0, 0.5])
@settings(deadline=None)
@given(chunk_rows=st.integers(1, 13))
def test_chunks_change_nothing(make_batch, logits, share: float, chunk_rows: int) -> None:
    batch, objective = step_of(make_batch, logits), Objective("reward", outcome=Outcome(teacher_share=share))
    for one, other in zip(derived(batch, objective, chunk_rows=chunk_rows), derived(batch, objective), strict=True):
        torch.testing.assert_close(one, other)


def test_a_rollout_without_a_reward_is_not_learned_from(make_batch, logits) -> None:
    batch, objective = step_of(make_batch, logits), Objective("reward", outcome=Outcome())
    spoiled_R = batch.outcome_R.clone()
    spoiled_R[3:6] = torch.nan
    spoiled = replace(batch, outcome_R=spoiled_R)
    assert (~learned_rows(spoiled, objective)).nonzero().squeeze(-1).tolist() == [3, 4, 5]
    total, gradient_RH = derived(spoiled, objective)
    assert total.isfinite()
    assert gradient_RH.isfinite().all()
    assert (gradient_RH[3:6] == 0).all()
    assert values(loss(spoiled, objective)[1])["tokens"] == 9


def test_what_has_no_meaning_is_refused(make_batch, logits) -> None:
    with pytest.raises(ValueError, match="learns from rewards alone"):
        Objective("reward")
    with pytest.raises(ValueError, match="use kind reward, or no share"):
        Objective("divergence", outcome=Outcome(teacher_share=0.5))
    with pytest.raises(ValueError, match="advantages of rewards"):
        loss(make_batch(logits(1, 2, 7), logits(2, 2, 7)), Objective("reward", outcome=Outcome()))
