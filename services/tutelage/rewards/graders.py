"""Graders that are sure to end soon, whatever they are given. Those that are not run in processes: see `grading`.

An item that cannot be graded, such as one without the reference that its grader compares with, is not valid and says
why. It never counts as 0.0, which would be an opinion.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from tutelage.rewards.outcomes import no_reference, scored, ungraded
from tutelage_client.wire import Contains, ExactMatch, LastNumber, Reward, RewardItem, Walk

# A sign counts where it is not between two operands; digits come in groups of three with commas, or without.
NUMBER = re.compile(r"(?:(?<![\w)])[-+])?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,3}\b)?")

POINT = re.compile(r"(-?\d{1,9}),(-?\d{1,9})")


def exact_match(grader: ExactMatch, item: RewardItem) -> Reward:
    """1.0 where completion and reference are equal without outer white space."""
    if item.reference is None:
        return no_reference(grader)
    completion, reference = item.completion.strip(), item.reference.strip()
    if grader.ignore_case:
        completion, reference = completion.casefold(), reference.casefold()
    return scored(completion == reference)


def last_number(grader: LastNumber, item: RewardItem) -> Reward:
    """1.0 where the last number of the completion is the last one of the reference, within `tolerance`.

    A completion without a number is a wrong answer, 0.0; a reference without one leaves nothing to compare with.
    """
    if item.reference is None:
        return no_reference(grader)
    wanted = _last_number(item.reference)
    if wanted is None:
        return ungraded("the reference holds no number")
    found = _last_number(item.completion)
    if found is None:
        return scored(False, found=None)
    return scored(abs(found - wanted) <= Decimal(str(grader.tolerance)), found=str(found))


def contains(grader: Contains, item: RewardItem) -> Reward:
    """1.0 where the reference, without outer white space, occurs in the completion."""
    reference = (item.reference or "").strip()
    if not reference:
        return no_reference(grader)
    completion = item.completion
    if grader.ignore_case:
        completion, reference = completion.casefold(), reference.casefold()
    return scored(reference in completion)


def walk(grader: Walk, item: RewardItem) -> Reward:
    """1.0 where the completion is nothing but moves and they lead to the reference: the verifier of a grid world."""
    target = POINT.fullmatch((item.reference or "").strip())
    if target is None:
        return ungraded(f'the grader {grader.kind} needs a reference such as "3,-2"')
    moves = item.completion.strip()
    x, y = moves.count("R") - moves.count("L"), moves.count("U") - moves.count("D")
    return scored(not moves.strip("RLUD") and (x, y) == (int(target[1]), int(target[2])), found=f"{x},{y}")


GRADERS: dict[str, Callable[[Any, RewardItem], Reward]] = {
    "exact_match": exact_match,
    "last_number": last_number,
    "contains": contains,
    "walk": walk,
}


def _last_number(text: str) -> Decimal | None:
    """A decimal, so that 0.1 is 0.1."""
    found = NUMBER.findall(text)
    return Decimal(found[-1].replace(",", "")) if found else None
