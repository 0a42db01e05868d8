"""What a route of the HTTP door begins with: whose teacher it is, and whether that one can take work."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from tutelage.serving import ServiceProblem
from tutelage.teacher.scorer import Scorer


def _scorer(request: Request) -> Scorer:
    return request.app.state.scorer


Teacher = Annotated[Scorer, Depends(_scorer)]


def refuse_if_busy(teacher: Scorer) -> None:
    """Refuse work that would wait too long, or that this teacher cannot do yet.

    Raises:
        ServiceProblem: 503, with the reason.
    """
    if teacher.not_ready is not None:
        raise ServiceProblem(503, "not_ready", teacher.not_ready, retry_after_s=1)
    waiting, limit = teacher.batcher.waiting_tokens, teacher.limits.max_waiting_tokens
    if waiting >= limit:
        detail = f"{waiting} tokens wait already, at most {limit} may; try again later or use another replica"
        raise ServiceProblem(503, "overloaded", detail, retry_after_s=1)
