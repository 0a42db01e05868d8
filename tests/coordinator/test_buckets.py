"""A run's metrics at the resolution that is asked for: exact, whatever was stored and whichever attempt counted."""

from __future__ import annotations

import random
from collections.abc import Callable
from statistics import fmean

import httpx2
import pytest
from sqlalchemy import delete, func, select

from tutelage.coordinator import buckets, reports
from tutelage.coordinator.db import Database
from tutelage.coordinator.tables import BucketRow
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.wire import CheckpointCommit, Lease, MetricSeries, Outcome, StepReport
from tutelage_client.worker import WorkerClient


def report(database: Database, run_id: str, epoch: int, values: dict[int, float | None]) -> None:
    """x of each step, and y of every seventh."""
    with database.write() as session:
        for step, value in values.items():
            metrics = {"x": value} | ({"y": float(step)} if step % 7 == 0 else {})
            row = StepReport(epoch=epoch, step=step, metrics=metrics, student_tokens=0, teacher_tokens=0)
            reports.step(session, run_id, row)


def check(series: MetricSeries, values: dict[int, float | None]) -> None:
    """Against the values themselves, taken together here."""
    width = series.bucket_steps
    starts = sorted({step // width * width for step in values})
    assert series.first_step == starts
    x = series.metrics["x"]
    for at, start in enumerate(starts):
        steps = [step for step in values if start <= step < start + width]
        known = [value for step in steps if (value := values[step]) is not None]
        assert (series.steps[at], series.last_step[at], x.count[at]) == (len(steps), max(steps), len(known))
        if known:
            assert (x.min[at], x.max[at], x.mean[at]) == (min(known), max(known), pytest.approx(fmean(known)))
        else:
            assert (x.min[at], x.max[at], x.mean[at]) == (None, None, None)


def drawn(first: int, steps: int, seed: int) -> dict[int, float | None]:
    draw = random.Random(seed)
    return {step: None if draw.random() < 0.1 else draw.gauss(0, 1) for step in range(first, first + steps)}


async def test_a_run_is_read_at_every_resolution(
    coordinator: CoordinatorClient, database: Database, lease: Lease
) -> None:
    values = drawn(0, 150, seed=1)
    report(database, lease.run_id, 1, values)
    for resolution, width in ((1, 256), (2, 256), (3, 64), (10, 16), (38, 4), (37, 16), (150, 1), (10_000, 1)):
        series = await coordinator.metric_series(lease.run_id, resolution)
        assert (series.resolution, series.bucket_steps) == (resolution, width)
        assert len(series.steps) <= resolution
        assert list(series.metrics) == ["x", "y"] or values[0] is None
        check(series, values)


async def test_a_report_costs_about_a_third_of_a_row(database: Database, lease: Lease) -> None:
    report(database, lease.run_id, 1, drawn(0, 257, seed=2))
    with database.read() as session:
        assert session.scalars(select(func.count()).select_from(BucketRow)).one() == 64 + 16 + 4 + 1


async def test_what_was_reported_before_buckets_were_kept_is_read_too(
    coordinator: CoordinatorClient, database: Database, lease: Lease
) -> None:
    values = drawn(5, 90, seed=3)
    report(database, lease.run_id, 1, values)
    with database.write() as session:
        session.execute(delete(BucketRow))
    later = drawn(95, 70, seed=4)
    report(database, lease.run_id, 1, later)
    for resolution in (2, 5, 20, 60):
        check(await coordinator.metric_series(lease.run_id, resolution), values | later)


@pytest.mark.parametrize(
    ("checkpoint", "restart"), [(None, 0), (0, 1), (46, 47), (47, 48), (63, 64), (65, 66), (98, 99), (98, 47), (98, 0)]
)
async def test_steps_that_were_done_again_count_once(
    coordinator: CoordinatorClient,
    worker: WorkerClient,
    database: Database,
    lease: Lease,
    checkpoint: int | None,
    restart: int,
) -> None:
    """Wherever the second attempt begins, at its checkpoint or, where that is broken, before, the first ends there."""
    first, second = drawn(0, 100, seed=5), drawn(restart, 23, seed=6)
    report(database, lease.run_id, 1, first)
    if checkpoint is not None:
        at = CheckpointCommit(epoch=1, step=checkpoint, path="p", weights_sha256="a")
        await worker.commit_checkpoint(lease.run_id, at)
    await worker.report_outcome(lease.run_id, Outcome(epoch=1, result="paused"))
    again = await worker.lease_run(lease.run_id, "w2")
    steps = (await coordinator.metric_series(lease.run_id, 3)).steps
    assert sum(steps) == (0 if checkpoint is None else checkpoint + 1)
    report(database, lease.run_id, again.epoch, second)
    kept = {step: value for step, value in first.items() if step < restart}
    for resolution in (1, 4, 12, 40, 500):
        check(await coordinator.metric_series(lease.run_id, resolution), kept | second)


async def test_means_of_huge_values_stay_finite(
    coordinator: CoordinatorClient, database: Database, lease: Lease
) -> None:
    report(database, lease.run_id, 1, dict.fromkeys(range(20), 1.7e308))
    [mean] = (await coordinator.metric_series(lease.run_id, 1, ["x"])).metrics["x"].mean
    assert mean == 1.7e308


async def test_a_run_without_steps_has_no_buckets(coordinator: CoordinatorClient, lease: Lease) -> None:
    series = await coordinator.metric_series(lease.run_id, 100)
    assert (series.bucket_steps, series.steps, series.metrics) == (1, [], {})


@pytest.mark.parametrize(
    ("query", "field", "says"),
    [
        ("resolution=0", "resolution", "at least 1"),
        ("resolution=10001", "resolution", "at most 10000"),
        ("resolution=5&after=3", "resolution", "leave after and limit out"),
        ("resolution=5&limit=3", "resolution", "leave after and limit out"),
        ("metric=x", "metric", "give a resolution too"),
        ("resolution=5&metric=x&metric=z", "metric", "no step of {run} has 'z'; it has x"),
    ],
)
async def test_what_cannot_be_asked_together_is_refused(
    http: httpx2.AsyncClient, database: Database, lease: Lease, query: str, field: str, says: str
) -> None:
    report(database, lease.run_id, 1, {1: 0.5})
    answer = await http.get(f"/v1/runs/{lease.run_id}/metrics?{query}")
    problem = answer.json()
    assert (answer.status_code, problem["field"]) == (422, field)
    assert says.format(run=lease.run_id) in problem["detail"]


def test_a_grain_that_is_stored_is_read_by_a_statement_a_width(
    database: Database, lease: Lease, statements: Callable[[], list[str]]
) -> None:
    """A long run costs as many rows as it has points: none of its steps but the newest few is read."""
    report(database, lease.run_id, 1, drawn(0, 65, seed=7))
    with database.read() as session:
        counted = statements()
        found = buckets.grain(session, lease.run_id, 5)
    assert [bucket.steps for bucket in found.buckets] == [16, 16, 16, 16, 1]
    read = [statement for statement in counted if statement.startswith("SELECT")]
    assert len(read) == 4, "the ends; 16 steps each; 4 and then 1 each of the newest"
