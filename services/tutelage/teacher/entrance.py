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
        waiting, speed = teacher.batcher.waiting_tokens, teacher.batcher.tokens_per_s
        after_s = 1 if speed is None else min(60, math.ceil((waiting - limit + 1) / speed))
        detail = f"{waiting} tokens wait already, at most {limit} may; try again in {after_s} s or use another replica"
        raise ServiceProblem(503, "overloaded", detail, retry_after_s=after_s)
