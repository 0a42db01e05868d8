"""The pieces of the coordinator's benchmark that could be wrong: what it fills in, and how it counts."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.coordinator import percentile
from benchmarks.coordinator.filling import Size, fill
from benchmarks.coordinator.rollout import NAME, TOKENS
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


@pytest.mark.parametrize(("share", "found"), [(0.95, 95), (0.5, 50), (1.0, 100), (0.001, 1)])
def test_a_percentile_is_a_value_that_was_measured(share: float, found: int) -> None:
    assert percentile(list(range(100, 0, -1)), share) == found
