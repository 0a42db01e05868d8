"""Inspections: what is unknown, what is impossible, and what does not face its rollout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from tutelage_client.wire import Inspection, StepReport

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def given() -> dict[str, Any]:
    return json.loads((GOLDEN / "inspection.json").read_text())


def test_null_is_impossible_where_it_was_scored_and_unknown_where_it_was_not(given: dict[str, Any]) -> None:
    scored = Inspection.model_validate(given)
    assert scored.teacher_logprob is not None and scored.teacher_topk_logprob is not None
    assert scored.teacher_logprob.tolist() == [-2.0, -np.inf]
    assert scored.teacher_topk_logprob[1].tolist() == [0.0, -np.inf]
    assert scored.gap is not None and scored.gap.tolist() == [-1.5, -np.inf]
    assert np.isnan(scored.contribution[1])
    unscored = Inspection.model_validate(given | {"valid": [True, False]})
    assert unscored.teacher_logprob is not None and np.isnan(unscored.teacher_logprob[1])
    assert unscored.gap is not None and np.isnan(unscored.gap[1])
    assert unscored.student_logprob.tolist() == [-0.5, -1.25], "the student is asked about every row"


def test_without_a_teacher_there_is_no_gap(given: dict[str, Any]) -> None:
    alone = {name: value for name, value in given.items() if not name.startswith("teacher")}
    assert Inspection.model_validate(alone | {"valid": [False, False]}).gap is None


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"student_entropy": [1.0]}, "student_entropy has 1 rows, valid has 2"),
        ({"teacher_topk_logprob": None}, "teacher_topk_ids and teacher_topk_logprob must come together"),
        ({"student_topk_ids": [[1], [2]]}, "agree in shape"),
        ({"teacher_logprob": ["x", None]}, "numbers or null"),
        ({"start": 0}, "greater than or equal to 1"),
    ],
)
def test_arrays_that_do_not_face_each_other_are_refused(
    given: dict[str, Any], changed: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValidationError, match=said):
        Inspection.model_validate(given | changed)


def test_an_inspection_faces_a_rollout_of_its_report() -> None:
    report = json.loads((GOLDEN / "step_report.json").read_text())
    inspection = report["inspections"]["r"]
    with pytest.raises(ValidationError, match="'x', which is none of the rollouts"):
        StepReport.model_validate(report | {"inspections": {"x": inspection}})
    with pytest.raises(ValidationError, match=r"2 rows from 1 on, its completion has 2 tokens from 2 on"):
        StepReport.model_validate(report | {"inspections": {"r": inspection | {"start": 1}}})
