"""What the text of a step is like, whoever wrote it: how long, how stale, how repetitive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from tutelage_client.wire import Rollout

REPEATED = 4
OTHERS = ("data", "teacher")  # whose text has no lag
OLDEST = 64  # versions, the most that `rollout.max_lag` allows; replayed text may be older


def described(rollouts: Sequence[Rollout], version: int) -> dict[str, float | None]:
    """Figures of the rollouts that a step learned from; `version`: of the student that learned.

    Data has no lag: no policy wrote it. Without any text of `REPEATED` tokens repetition is None.
    """
    lengths = [len(r.completion_ids) for r in rollouts]
    lags = [lag(r, version) for r in rollouts if r.source not in OTHERS]
    repeats = [repeated(r.completion_ids) for r in rollouts]
    grams = sum(count for _, count in repeats)
    return {
        "tokens": sum(lengths),
        "prompt_tokens": sum(len(r.prompt_ids) for r in rollouts),
        "lag": sum(lags) / len(lags) if lags else 0.0,
        "lag_max": max(lags, default=0),
        "length": sum(lengths) / len(rollouts) if rollouts else None,
        "length_max": max(lengths, default=None),
        "truncated": sum(r.finish_reason == "length" for r in rollouts) / len(rollouts) if rollouts else None,
        "repetition": sum(again for again, _ in repeats) / grams if grams else None,
    }


def by_lag(rollouts: Iterable[Rollout], version: int) -> dict[str, float | None]:
    """How many of the student's rollouts are how many versions old, for those lags that any has."""
    lags = Counter(min(lag(each, version), OLDEST + 1) for each in rollouts if each.source not in OTHERS)
    return {f"rollouts_at_lag/{old if old <= OLDEST else f'{old}+'}": count for old, count in sorted(lags.items())}


def lag(rollout: Rollout, version: int) -> int:
    """Policy versions between its writing and the student that learns; 0 where no student wrote it."""
    return 0 if rollout.source in OTHERS else version - rollout.policy_version


def repeated(token_ids: NDArray[np.int32], size: int = REPEATED) -> tuple[int, int]:
    """How many of a text's n-grams of `size` tokens stood in it before, and how many it has."""
    grams = list(zip(*(token_ids[shift:].tolist() for shift in range(size)), strict=False))
    return len(grams) - len(set(grams)), len(grams)
