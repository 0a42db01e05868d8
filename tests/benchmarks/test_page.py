"""The page and the committed results: equal work, and the same figures on both."""

from __future__ import annotations

import pytest
from benchmarks.page import PAGE, TABLES, filled, result_of


def test_the_page_shows_the_committed_results() -> None:
    page = PAGE.read_text()
    assert filled(page) == page, "python -m benchmarks.page writes its tables anew"


@pytest.mark.parametrize("mark", TABLES)
def test_every_cell_compares_equal_work(mark: str) -> None:
    assert all(cell["equal"] for cell in result_of(mark)["cells"])
