"""Rows of unequal length into rectangles, so that little is padded and no forward holds too much."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# What one forward more costs, in tokens of padding: short rows go together, long ones only with their like.
FORWARD_COST = 64
# What one forward may hold, cached tokens included, unless a single row is longer.
FORWARD_TOKENS = 16_384


def buckets(lengths: Sequence[int], cached: int = 0) -> list[list[int]]:
    """Indices of `lengths` in batches of similar length, longest first; a batch is padded to its first row.

    The cut is the one with the least padding plus FORWARD_COST a batch, found exactly over the rows in order of length.
    cached: tokens that every row brings along, which count towards FORWARD_TOKENS
    """
    order = np.argsort(lengths, kind="stable")[::-1]
    width_N = np.asarray(lengths)[order]
    rows_N = np.maximum(1, FORWARD_TOKENS // (width_N + cached))  # that fit into a batch which begins here
    cost, begin = np.zeros(len(order) + 1), np.zeros(len(order) + 1, dtype=int)
    for end in range(1, len(order) + 1):
        size_N = end - np.arange(end)
        cost_N = np.where(size_N <= rows_N[:end], cost[:end] + size_N * width_N[:end] + FORWARD_COST, np.inf)
        begin[end] = int(cost_N.argmin())
        cost[end] = cost_N[begin[end]]
    found: list[list[int]] = []
    end = len(order)
    while end:
        found.append(order[begin[end] : end].tolist())
        end = begin[end]
    return found[::-1]
