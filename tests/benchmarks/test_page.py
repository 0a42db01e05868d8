"""The page and the committed results: equal work, and the same figures on both."""

from __future__ import annotations

import pytest
from benchmarks.page import PAGE, TABLES, file_of, filled, result_of


def test_the_page_shows_the_committed_results() -> None:
    page = PAGE.read_text()
    assert filled(page) == page, "python -m benchmarks.page writes its tables anew"


def test_a_cell_shows_its_target_and_one_of_an_older_form_shows_none() -> None:
    cell = result_of("coordinator")["cells"][0] | {"target": {"figure": "p95_ms", "at_most": 100.0, "met": False}}
    older = {name: value for name, value in cell.items() if name != "target"}
    head, _, *rows = TABLES["coordinator"]({"cells": [cell, older]})
    column = [each.strip() for each in head.split("|")].index("target")
    assert [row.split("|")[column].strip() for row in rows] == ["p95 ≤ 100 ms: missed", "-"]


# Liger rounds to bfloat16 inside of its loss; the page says so beside the cell.
UNEQUAL = {("V=32k, bfloat16", "Liger chunked JSD")}


@pytest.mark.parametrize("mark", [mark for mark in TABLES if file_of(mark).exists()])
def test_every_cell_compares_equal_work_or_is_known_not_to(mark: str) -> None:
    unequal = {(cell["cell"], cell["peer"]["name"]) for cell in result_of(mark)["cells"] if not cell["equal"]}
    assert unequal == (UNEQUAL if mark == "loss" else set())
