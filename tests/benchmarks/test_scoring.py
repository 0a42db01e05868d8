"""The pieces of the scoring benchmark that could be wrong: equal results, and what is counted on each side."""

from __future__ import annotations

import pytest
from benchmarks.scoring import PROMPT, asked, cell, made


@pytest.mark.parametrize("logits_from", [0, PROMPT - 1])
def test_both_sides_score_the_same_and_ours_counts_each_prompt_once(logits_from: int) -> None:
    model = made(hidden=64, layers=1, vocabulary=300)
    found = cell("tiny", model, asked(prompts=1, vocabulary=300), logits_from, repetitions=1)
    assert found.equal
    assert found.counted["padded_tokens"] > 8 * PROMPT + found.counted["response_tokens"]
    assert found.counted["predicted"] > 2
    assert found.counted["tokens_per_s_ours"] == pytest.approx(
        1000 * found.counted["response_tokens"] / found.ours, rel=1e-6
    )
