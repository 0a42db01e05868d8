"""TAID's clock against its definition, and what it may never do."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.core.clock import Clock, advanced
from tutelage.core.objective import Objective
from tutelage.core.targets import Target

TARGET = Target("mixture", weight=0.4, final_weight=1.0, over_steps=100, adaptive=True)


@given(losses=st.lists(st.floats(0.01, 100), min_size=1, max_size=150))
def test_the_share_is_the_papers_and_never_behind_the_linear_one_nor_beyond_its_end(losses: list[float]) -> None:
    clock, t, m, previous = Clock(), 0.4, 0.0, None
    for step, loss in enumerate(losses, 1):
        clock, linear = advanced(clock, TARGET, step, loss), min(1.0, 0.4 + 0.6 * step / 100)
        m = 0.99 * m + 0.01 * ((previous - loss) / previous if previous is not None else 0.0)
        t, previous = min(1.0, max(linear, t + 5e-4 * (1 - t) / (1 + math.exp(-m)))), loss
        assert clock.share == pytest.approx(t)
        assert linear - 1e-12 <= (clock.share or 0) <= 1


def test_a_falling_loss_moves_it_further_than_a_rising_one() -> None:
    slow = Target("mixture", weight=0.4, final_weight=1.0, over_steps=10**6, adaptive=True)
    falling = rising = Clock()
    for step in range(1, 30):
        falling, rising = (advanced(c, slow, step, 2.0 ** (s * step)) for c, s in ((falling, -1), (rising, 1)))
    assert (falling.share or 0) > (rising.share or 0) > 0.4


def test_a_step_that_learned_nothing_leaves_the_clock() -> None:
    clock = Clock(0.9, 0.1, 2.0)
    assert advanced(clock, TARGET, 5, None) == clock


def test_the_objective_of_a_step_has_the_clocks_share() -> None:
    objective = Objective("divergence", "forward_kl", target=TARGET)
    assert objective.at(3, 0.7).target == Target("mixture", weight=0.7, over_steps=100)
    assert objective.at(50).target.weight == pytest.approx(0.7)


def test_a_clock_needs_a_share_that_rises() -> None:
    for final_weight in (None, 0.2):
        with pytest.raises(ValueError, match="give a final_weight above weight"):
            Target("mixture", weight=0.5, final_weight=final_weight, adaptive=True)
