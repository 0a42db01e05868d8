"""What a route of the HTTP door begins with: whose teacher it is, and whether that one can take work."""

from __future__ import annotations

import math
from typing import Annotated

from fastapi import Depends, Request

from tutelage.serving import ServiceProblem
from tutelage.teacher.callers import Caller
from tutelage.teacher.scorer import Scorer

# What every route with work for the model may answer.
PAID = ("rate_limited", "budget_spent")
BUSY = ("capability_missing", "engine_failed", "not_ready", "overloaded", "deadline_exceeded", *PAID)


async def scorer_of(request: Request) -> Scorer:  # async, or FastAPI asks a thread
    """The teacher that this process serves."""
    return request.app.state.scorer


Teacher = Annotated[Scorer, Depends(scorer_of)]


def refuse_if_busy(teacher: Scorer, caller: Caller) -> None:
    """Refuse work that would wait too long, or that this teacher cannot do yet.

    Raises:
        ServiceProblem: 503, with the reason and how long until there is room.
    """
    if teacher.not_ready is not None:
        raise ServiceProblem(503, "not_ready", teacher.not_ready, retry_after_s=1)
    limit = teacher.limits.max_waiting_tokens
    if not teacher.batcher.has_room(caller.account.name, limit):
        raise _overloaded("tokens", teacher.batcher.waiting_tokens, limit, teacher.batcher.tokens_per_s)


def refuse_if_grading(teacher: Scorer, caller: Caller) -> None:
    """Refuse items that would wait too long for graders, which need no model.

    Raises:
        ServiceProblem: 503, with the reason and how long until there is room.
    """
    limit = teacher.limits.max_waiting_items
    if not teacher.grading.has_room(caller.account.name, limit):
        raise _overloaded("items", teacher.grading.waiting_items, limit, teacher.grading.items_per_s)


def _overloaded(what: str, waiting: int, limit: int, per_s: float | None) -> ServiceProblem:
    after_s = 1 if per_s is None else min(60, math.ceil((waiting - limit + 1) / per_s))
    detail = f"{waiting} {what} wait already, at most {limit} may; try again in {after_s} s or use another replica"
    return ServiceProblem(503, "overloaded", detail, retry_after_s=after_s)
