"""What a grader says of an item: a value, or why there is none."""

from __future__ import annotations

from typing import Any

from tutelage_client.wire import Grader, Reward


def scored(right: bool, **detail: Any) -> Reward:
    """1.0 or 0.0."""
    return Reward(value=float(right), valid=True, detail=detail)


def ungraded(reason: str, **detail: Any) -> Reward:
    """Not valid. With an `outcome` in `detail` the machine is why; without one the data is. A completion never is."""
    return Reward(value=None, valid=False, detail={**detail, "reason": reason})


def no_reference(grader: Grader) -> Reward:
    return ungraded(f"the grader {grader.kind} needs a reference to compare with")
