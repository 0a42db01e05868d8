"""Cutting requests and sharing out costs: nothing is lost, nothing is made up."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tutelage.engines.checks import score_usage
from tutelage.teacher.admission import group_tokens
from tutelage.teacher.parts import cut, share, share_usage
from tutelage_client.wire import Completion, ScoreGroup, Usage

sizes = st.integers(1, 12)


@st.composite
def groups(draw: st.DrawFn) -> list[ScoreGroup]:
    def one() -> ScoreGroup:
        lengths = draw(st.lists(sizes, min_size=1, max_size=4))
        first = draw(st.integers(0, 1000))
        completions = [Completion(token_ids=np.arange(first, first + n, dtype=np.int32)) for n in lengths]
        return ScoreGroup(prompt_ids=np.arange(draw(sizes), dtype=np.int32), completions=tuple(completions))

    return [one() for _ in range(draw(st.integers(1, 5)))]


def completions_of(parts: list[list[ScoreGroup]]) -> list[tuple[int, list[int]]]:
    return [(len(g.prompt_ids), c.token_ids.tolist()) for part in parts for g in part for c in g.completions]


@given(groups(), st.integers(1, 60))
def test_parts_hold_every_completion_in_order_within_the_budget(given_groups: list[ScoreGroup], budget: int) -> None:
    parts = cut(given_groups, budget)
    assert completions_of(parts) == completions_of([given_groups])
    for part in parts:
        alone = len(part) == 1 and len(part[0].completions) == 1
        assert alone or sum(map(group_tokens, part)) <= budget


@given(groups())
def test_what_fits_is_not_cut(given_groups: list[ScoreGroup]) -> None:
    assert cut(given_groups, sum(map(group_tokens, given_groups))) == [given_groups]


@given(st.integers(0, 10_000), st.lists(st.integers(0, 50), min_size=1, max_size=8).filter(any))
def test_shares_add_up_to_the_total_and_follow_the_weights(total: int, weights: list[int]) -> None:
    shares = share(total, weights)
    assert sum(shares) == total
    for part, weight in zip(shares, weights, strict=True):
        assert abs(part - total * weight / sum(weights)) <= 1


@given(st.lists(groups(), min_size=1, max_size=4))
def test_a_merged_call_costs_each_request_what_it_costs_alone(requests: list[list[ScoreGroup]]) -> None:
    alone = [score_usage(request) for request in requests]
    assert share_usage(sum(alone, Usage()), requests) == alone


@given(st.lists(groups(), min_size=1, max_size=4), st.integers(0, 500), st.integers(0, 500))
def test_another_count_of_the_engine_is_shared_out_whole(
    requests: list[list[ScoreGroup]], forward: int, cached: int
) -> None:
    scored = sum(group.scored_tokens for request in requests for group in request)
    usage = Usage(scored_tokens=scored, forward_tokens=forward, cached_tokens=cached)
    assert sum(share_usage(usage, requests), Usage()) == usage
