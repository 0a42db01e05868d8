"""The page on faults names tests that exist, and shows what the last run of them said."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pages import ROOT
from tests.faults.matrix import MATRIX, Row

RESULT: dict[str, Any] = json.loads((ROOT / "docs" / "results" / "faults.json").read_text())


@pytest.mark.parametrize("row", MATRIX, ids=lambda row: f"row {row.number}")
def test_the_tests_of_a_row_exist_and_were_run(row: Row) -> None:
    for test in row.tests:
        path, _, name = test.partition("[")[0].partition("::")
        assert f"def {name}" in (ROOT / path).read_text()
    (shown,) = [found["tests"] for found in RESULT["rows"] if found["number"] == row.number]
    assert [each["test"] for each in shown] == list(row.tests), "run `python -m tests.faults`"


def test_every_row_of_the_matrix_is_there_once() -> None:
    assert [row.number for row in MATRIX] == list(range(1, 31))
