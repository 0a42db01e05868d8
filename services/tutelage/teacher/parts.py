"""How requests and engine calls map onto each other: cutting, merging, sharing out what a call cost."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import reduce
from operator import add

from tutelage.engines.checks import score_usage
from tutelage.teacher.admission import group_tokens
from tutelage.teacher.prices import most_scored
from tutelage_client.wire import ScoreGroup, Usage


def cut(groups: Sequence[ScoreGroup], max_tokens: int) -> list[list[ScoreGroup]]:
    """Consecutive parts of at most `max_tokens` each, in order; one completion is never cut.

    A group that is too large is cut between its completions, and each piece brings the prompt again.
    """
    if sum(map(group_tokens, groups)) <= max_tokens:
        return [list(groups)]
    parts: list[list[ScoreGroup]] = []
    room = 0
    for piece in itertools.chain.from_iterable(_pieces(group, max_tokens) for group in groups):
        tokens = group_tokens(piece)
        if not parts or tokens > room:
            parts.append([])
            room = max_tokens
        parts[-1].append(piece)
        room -= tokens
    return parts


def _pieces(group: ScoreGroup, max_tokens: int) -> Iterator[ScoreGroup]:
    if group_tokens(group) <= max_tokens:
        yield group
        return
    piece, room = [], 0
    for completion in group.completions:
        if piece and len(completion.token_ids) > room:
            yield ScoreGroup(prompt_ids=group.prompt_ids, completions=tuple(piece))
            piece = []
        if not piece:
            room = max_tokens - len(group.prompt_ids)
        piece.append(completion)
        room -= len(completion.token_ids)
    yield ScoreGroup(prompt_ids=group.prompt_ids, completions=tuple(piece))


def share_usage(usage: Usage, parts: Sequence[Sequence[ScoreGroup]]) -> list[Usage]:
    """The cost of one engine call by part: each its own where they add up to `usage`, else as the most of each is."""
    if len(parts) == 1:
        return [usage]
    alone = [score_usage(part) for part in parts]
    if reduce(add, alone) == usage:
        return alone
    scored = share(usage.scored_tokens, [one.scored_tokens for one in alone])
    most = [most_scored(part) for part in parts]
    others = (share(tokens, most) for tokens in (usage.forward_tokens, usage.cached_tokens, usage.generated_tokens))
    return [
        Usage(scored_tokens=s, forward_tokens=f, cached_tokens=c, generated_tokens=g)
        for s, f, c, g in zip(scored, *others, strict=True)
    ]


def share(total: int, weights: Sequence[int]) -> list[int]:
    """Whole numbers in proportion to `weights` that add up to `total`."""
    edges = [total * upto // max(sum(weights), 1) for upto in itertools.accumulate(weights)]
    return [b - a for a, b in itertools.pairwise([0, *edges])]
