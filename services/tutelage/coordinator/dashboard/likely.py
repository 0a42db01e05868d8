"""What student and teacher held most likely before each token: the inspector reads it a block of tokens at a time."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query
from numpy.typing import NDArray
from pydantic_core import to_json
from starlette.responses import Response

from tutelage.coordinator import rollouts
from tutelage.coordinator.dashboard import words
from tutelage.coordinator.dashboard.samples import BLOCK
from tutelage.coordinator.db import Database
from tutelage_client.wire import Inspection

# Of one token: (id, log-prob) of each in the list, None for -inf; None where no list is known.
Listed = list[tuple[int, float | None]] | None


def add_likely(api: APIRouter, database: Database, headers: dict[str, str]) -> None:
    @api.get("/runs/{run_id}/likely/{rollout_id:path}")
    def likely_of_block(run_id: str, rollout_id: str, block: Annotated[int, Query(ge=0)]) -> Response:
        with database.read() as session:
            inspection = rollouts.inspection(session, run_id, rollout_id)
        return Response(to_json(likely(inspection, block)), media_type="application/json", headers=headers)


def likely(inspection: Inspection, block: int) -> dict[str, Any]:
    """Of each token of a block; beyond the last one there are none. texts: as they stand alone, by their ids"""
    rows = slice(block * BLOCK, (block + 1) * BLOCK)
    scored = inspection.valid[rows]
    student = _lists(inspection.student_topk_ids[rows], inspection.student_topk_logprob[rows], np.ones_like(scored))
    teacher = None
    if inspection.teacher_topk_ids is not None and inspection.teacher_topk_logprob is not None:
        teacher = _lists(inspection.teacher_topk_ids[rows], inspection.teacher_topk_logprob[rows], scored)
    named = {token_id for listed in (*student, *(teacher or ())) for token_id, _ in listed or ()}
    texts = {token_id: words.alone(inspection.texts[token_id]) for token_id in named if token_id in inspection.texts}
    return {"student": student, "teacher": teacher, "texts": texts}


def _lists(ids: NDArray[np.int32], logprob: NDArray[np.float32], known: NDArray[np.bool_]) -> list[Listed]:
    rounded = logprob.astype(np.float64).round(4).astype(object)
    rounded[~np.isfinite(logprob)] = None
    rows = zip(ids.tolist(), rounded.tolist(), known.tolist(), strict=True)
    return [_listed(row, values) if is_known else None for row, values, is_known in rows]


def _listed(ids: list[int], values: list[float | None]) -> Listed:
    """Less what pads the row."""
    return [pair for pair in zip(ids, values, strict=True) if pair[0] >= 0]
