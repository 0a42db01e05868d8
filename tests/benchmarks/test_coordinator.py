"""The pieces of the coordinator's benchmark that could be wrong: what it fills in, and how it counts."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest
from benchmarks.coordinator import LEASE_S
from benchmarks.coordinator.expected import pages
from benchmarks.coordinator.filling import Size, fill
from benchmarks.coordinator.rollout import NAME, TOKENS
from benchmarks.measure import Target, percentile, target
from benchmarks.processes import python, serving
from sqlalchemy import delete

from tutelage.coordinator.buckets import grain
from tutelage.coordinator.db import Database
from tutelage.coordinator.rollouts import sample
from tutelage.coordinator.tables import BucketRow


def test_copies_are_runs_like_those_that_were_reported(tmp_path: Path) -> None:
    filled = fill(tmp_path / "c.db", Size(runs=3, steps=64, long_run_steps=4 * 64))
    assert filled.points == 3 * 65 + 4 * 64
    database = Database(f"sqlite:///{tmp_path / 'c.db'}")
    with database.read() as session:
        stored = [grain(session, run, 16) for run in (*filled.run_ids, filled.long_run_id)]
        shown = sample(session, filled.run_ids[0], NAME)
    with database.write() as session:
        session.execute(delete(BucketRow))
        assert [grain(session, run, 16) for run in (*filled.run_ids, filled.long_run_id)] == stored
    assert [(each.width, len(each.buckets)) for each in stored] == [(16, 5), (16, 5), (16, 5), (16, 16)]
    assert shown.inspection is not None and len(shown.inspection.valid) == len(shown.rollout.completion_ids) == TOKENS
    database.close()


def test_an_answer_is_right_where_it_shows_what_was_filled_in_and_no_other_is(tmp_path: Path) -> None:
    filled = fill(tmp_path / "coordinator.db", Size(runs=60, steps=4, long_run_steps=2 * 4))
    command = python("tutelage.coordinator", "--data-dir", str(tmp_path), "--port", "0", "--lease-s", LEASE_S)
    with serving(command, tmp_path / "coordinator.log") as (url, _):
        asked = {page.path: page for each in pages(url, filled).values() for page in (each[0], each[-1])}
        texts = {path: httpx2.get(f"{url}{path}").text for path in asked}
    assert len(asked) == 9, "both pages of the list, two runs and the long one, the metrics of these, a rollout"
    for path, page in asked.items():
        assert [other for other, text in texts.items() if is_json(other) == is_json(path) and page.shows(text)] == [
            path
        ]


def is_json(path: str) -> bool:
    return path.startswith("/v1/")


def test_a_target_says_whether_it_was_met() -> None:
    counted = {"p95_ms": 100.0}
    assert target(counted, "p95_ms", 100.0) == Target("p95_ms", 100.0, met=True)
    assert not target(counted, "p95_ms", 99.9).met


@pytest.mark.parametrize(("share", "found"), [(0.95, 95), (0.5, 50), (1.0, 100), (0.001, 1)])
def test_a_percentile_is_a_value_that_was_measured(share: float, found: int) -> None:
    assert percentile(list(range(100, 0, -1)), share) == found
