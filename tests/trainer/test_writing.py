"""What the text of a step is like."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.trainer.writing import OLDEST, by_lag, described, repeated


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(1, 5))
def test_a_run_of_tokens_counts_as_repeated_where_it_stood_before(ids: list[int], size: int) -> None:
    runs = [tuple(ids[at : at + size]) for at in range(len(ids) - size + 1)]
    again = sum(run in runs[:at] for at, run in enumerate(runs))
    assert repeated(np.array(ids, dtype=np.int32), size) == (again, len(runs))


def test_a_loop_is_nearly_all_repetition_and_no_completion_repeats_another(random_rollouts: Any) -> None:
    [rollout] = random_rollouts(1, 0)
    loop, plain = (
        rollout.model_copy(update={"completion_ids": np.array(ids, dtype=np.int32)})
        for ids in ([1, 2] * 32, list(range(64)))
    )
    assert described([loop], 0)["repetition"] == pytest.approx(59 / 61)
    assert described([plain, plain], 0)["repetition"] == 0
    assert described([loop, plain], 0)["repetition"] == pytest.approx(59 / 122)
    short = rollout.model_copy(update={"completion_ids": np.array([1, 1, 1], dtype=np.int32)})
    assert described([short], 0)["repetition"] is None


def test_lag_and_length_are_told_by_mean_and_extreme(random_rollouts: Any) -> None:
    texts = {"student": (3, 4), "pushed": (1, 8), "data": (0, 1)}
    [rollout] = random_rollouts(1, 0)
    rollouts = [
        rollout.model_copy(update={"source": s, "policy_version": v, "completion_ids": np.arange(n, dtype=np.int32)})
        for s, (v, n) in texts.items()
    ]
    told = described(rollouts, 4)
    assert (told["lag"], told["lag_max"]) == (2, 3)
    assert (told["tokens"], told["length"], told["length_max"]) == (13, pytest.approx(13 / 3), 8)
    assert told["prompt_tokens"] == 3 * len(rollout.prompt_ids)
    assert by_lag([*rollouts, rollouts[0]], 4) == {"rollouts_at_lag/1": 2, "rollouts_at_lag/3": 1}, "data has none"
    assert by_lag(rollouts, OLDEST + 2) == {f"rollouts_at_lag/{OLDEST + 1}+": 1, f"rollouts_at_lag/{OLDEST - 1}": 1}
    assert (described(rollouts[2:], 4)["lag"], described(rollouts[2:], 4)["lag_max"]) == (0, 0)
