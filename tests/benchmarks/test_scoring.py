"""The pieces of the scoring benchmark that could be wrong: equal results, and what is counted on each side."""

from __future__ import annotations

import pytest
from benchmarks.scoring import PEERS, Plan, measured
from benchmarks.scoring.sides import PROMPT, Size


@pytest.mark.parametrize("peer", PEERS)
def test_both_sides_score_the_same_and_ours_counts_each_prompt_once(peer: str) -> None:
    found = measured(Plan(Size(64, 1, 300), 8, peer, pairs=1, prompts=1))
    assert found.equal
    assert found.counted["padded_tokens"] > 8 * PROMPT + found.counted["response_tokens"]
    assert found.counted["predicted"] > 2
    assert found.counted["tokens_per_s_ours"] == pytest.approx(
        1000 * found.counted["response_tokens"] / found.ours, rel=1e-6
    )


def test_what_scoring_holds_at_once_does_not_grow_with_vocabulary_times_tokens() -> None:
    small, large = (measured(Plan(Size(64, 1, size), 8, "padded", pairs=1, prompts=1)) for size in (8_192, 32_768))
    ours, theirs = (large.counted[f"peak_mb_{side}"] - small.counted[f"peak_mb_{side}"] for side in ("ours", "theirs"))
    logits_mb = (32_768 - 8_192) * small.counted["response_tokens"] * 4 / 1e6
    assert ours < 0.5 * logits_mb < theirs
