"""Rows are cut into rectangles with the least padding, and no rectangle holds more than a forward may."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.engines import bucketing
from tutelage.engines.bucketing import FORWARD_COST, FORWARD_TOKENS, buckets

lengths = st.lists(st.integers(1, 3000), max_size=9)


def cost(cut: list[list[int]], rows: list[int]) -> int:
    return sum(len(batch) * max(rows[i] for i in batch) + FORWARD_COST for batch in cut)


def fits(cut: list[list[int]], rows: list[int], cached: int) -> bool:
    return all(len(b) == 1 or len(b) * (max(rows[i] for i in b) + cached) <= FORWARD_TOKENS for b in cut)


@given(lengths, st.sampled_from([0, 500, 20_000]))
def test_no_other_cut_of_the_ordered_rows_is_cheaper(rows: list[int], cached: int) -> None:
    cut = buckets(rows, cached)
    assert sorted(itertools.chain.from_iterable(cut)) == list(range(len(rows)))
    assert fits(cut, rows, cached)
    assert [max(rows[i] for i in batch) for batch in cut] == [rows[batch[0]] for batch in cut]
    ordered = sorted(range(len(rows)), key=lambda i: -rows[i])
    for ends in itertools.product([False, True], repeat=max(len(rows) - 1, 0)):
        marks = [0, *(i + 1 for i, end in enumerate(ends) if end), len(rows)]
        other = [ordered[a:b] for a, b in itertools.pairwise(marks) if a < b]
        assert not fits(other, rows, cached) or cost(cut, rows) <= cost(other, rows)


def test_short_rows_share_a_forward_and_a_long_one_goes_alone() -> None:
    assert sorted(map(sorted, buckets([3, 2000, 30, 1, 17]))) == [[0, 2, 3, 4], [1]]


@pytest.mark.parametrize("cached", [0, 900])
def test_a_row_over_the_limit_of_a_forward_is_still_run(cached: int) -> None:
    assert buckets([bucketing.FORWARD_TOKENS + 1], cached) == [[0]]
