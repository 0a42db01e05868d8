"""What trainers report and people read: metrics, events, checkpoints, samples, the model."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from tutelage.coordinator import reports
from tutelage.coordinator.db import Database
from tutelage.coordinator.events import events
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.errors import ProblemResponse
from tutelage_client.wire import CheckpointCommit, EventReport, Lease, Outcome, Rollout, StepReport
from tutelage_client.worker import WorkerClient

Spec = Callable[..., dict[str, Any]]


async def test_a_step_is_one_row_however_often_it_is_reported(
    coordinator: CoordinatorClient, worker: WorkerClient, lease: Lease
):
    first = StepReport(
        epoch=1, step=1, metrics={"reverse_kl": 0.5, "accuracy": 0.25}, student_tokens=10, teacher_tokens=20
    )
    second = StepReport(
        epoch=1, step=2, metrics={"reverse_kl": 0.25, "lag": None}, student_tokens=30, teacher_tokens=40
    )
    for report in (first, first, second):
        await worker.report_step(lease.run_id, report)
    assert await coordinator.metrics(lease.run_id) == [
        {"step": 1, "epoch": 1, "reverse_kl": 0.5, "accuracy": 0.25, "student_tokens": 10, "teacher_tokens": 20},
        {"step": 2, "epoch": 1, "reverse_kl": 0.25, "lag": None, "student_tokens": 30, "teacher_tokens": 40},
    ]
    run = await coordinator.run(lease.run_id)
    assert run.metrics == {"reverse_kl": 0.25, "accuracy": 0.25}, "the newest value of each"
    assert (run.step, run.student_tokens, run.teacher_tokens) == (2, 30, 40)
    told = [e.data["step"] for e in (await coordinator.event_page(run.id)).data if e.type == "metrics"]
    assert told == [1, 2]


async def test_an_older_step_sent_again_does_not_take_the_run_back(
    coordinator: CoordinatorClient, worker: WorkerClient, lease: Lease
):
    for number in (1, 2, 1):
        report = StepReport(epoch=1, step=number, metrics={"x": number}, student_tokens=number, teacher_tokens=number)
        await worker.report_step(lease.run_id, report)
    run = await coordinator.run(lease.run_id)
    assert (run.step, run.metrics, run.student_tokens, run.teacher_tokens) == (2, {"x": 2}, 2, 2)


async def test_a_metric_that_is_not_finite_is_null(
    http: httpx2.AsyncClient, coordinator: CoordinatorClient, lease: Lease
):
    body = '{"epoch": 1, "step": 1, "metrics": {"a": NaN, "b": Infinity}, "student_tokens": 0, "teacher_tokens": 0}'
    path = f"/internal/v1/runs/{lease.run_id}/steps"
    answer = await http.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 204
    assert [(row["a"], row["b"]) for row in await coordinator.metrics(lease.run_id)] == [(None, None)]


async def test_all_rows_of_a_long_run_come_in_one_answer(http: httpx2.AsyncClient, database: Database, lease: Lease):
    with database.write() as session:
        for number in range(1, 251):
            report = StepReport(epoch=1, step=number, metrics={"x": 1.0}, student_tokens=0, teacher_tokens=0)
            reports.step(session, lease.run_id, report)
    answer = (await http.get(f"/v1/runs/{lease.run_id}/metrics")).json()
    assert [row["step"] for row in answer["data"]] == list(range(1, 251))
    assert answer["next"] is None


def test_events_of_many_writers_get_numbers_without_gap_or_repeat(database: Database, lease: Lease):
    together = threading.Barrier(4)

    def write(_: int) -> None:
        together.wait(10)
        for _ in range(10):
            with database.write() as session:
                reports.event(session, lease.run_id, EventReport(epoch=1, type="log", message="m"))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    with database.read() as session:
        ids = [e.id for e in events(session, lease.run_id, None, 1000).data]
    assert ids == list(range(1, 43))


async def test_an_attempt_that_fell_back_replaces_what_lay_beyond(
    coordinator: CoordinatorClient, worker: WorkerClient, lease: Lease
) -> None:
    """The second attempt finds the committed checkpoints broken and starts again: its lineage counts, step by step."""

    async def learn(epoch: int, step: int) -> None:
        report = StepReport(epoch=epoch, step=step, metrics={"x": epoch}, student_tokens=step, teacher_tokens=step)
        await worker.report_step(lease.run_id, report)

    async def commit(epoch: int, step: int) -> None:
        path, manifest = f"step-{step}-e{epoch}", f"m{epoch}"
        told = CheckpointCommit(epoch=epoch, step=step, path=path, weights_sha256="w", manifest_sha256=manifest)
        await worker.commit_checkpoint(lease.run_id, told)

    for step in range(1, 7):
        await learn(1, step)
        if step % 2 == 0:
            await commit(1, step)
    await worker.report_outcome(lease.run_id, Outcome(epoch=1, result="paused"))
    second = await worker.lease_run(lease.run_id, "w2")
    assert second.checkpoint is not None
    offered = [second.checkpoint, *second.older_checkpoints]
    assert [(c.step, c.manifest_sha256) for c in offered] == [(6, "m1"), (4, "m1")], "as many as are kept on disk"
    for step in (0, 1, 2):
        await learn(2, step)
    assert [(row["step"], row["epoch"]) for row in await coordinator.metrics(lease.run_id)] == [(0, 2), (1, 2), (2, 2)]
    assert (await coordinator.run(lease.run_id)).step == 2
    await commit(2, 2)
    kept = await coordinator.checkpoints(lease.run_id)
    assert [(c.step, c.epoch, c.manifest_sha256) for c in kept] == [(2, 2, "m2")]


async def test_a_checkpoint_is_committed_once_a_step_and_never_an_older_one(
    coordinator: CoordinatorClient, worker: WorkerClient, lease: Lease
):
    for number, sha in ((5, "a"), (10, "b"), (10, "b"), (10, "c")):
        commit = CheckpointCommit(epoch=1, step=number, path=f"step-{number}", weights_sha256=sha)
        await worker.commit_checkpoint(lease.run_id, commit)
    with pytest.raises(ProblemResponse) as refused:
        await worker.commit_checkpoint(lease.run_id, CheckpointCommit(epoch=1, step=5, path="p", weights_sha256="d"))
    assert (refused.value.status, refused.value.code) == (409, "stale_step")
    told = [
        e.data["weights_sha256"] for e in (await coordinator.event_page(lease.run_id)).data if e.type == "checkpoint"
    ]
    assert told == ["a", "b", "c"]
    kept = await coordinator.checkpoints(lease.run_id)
    assert [(c.step, c.epoch, c.path, c.weights_sha256) for c in kept] == [
        (5, 1, "step-5", "a"),
        (10, 1, "step-10", "c"),
    ]
    assert all(c.created_at is not None for c in kept)


async def test_sample_rollouts_come_back_as_they_were_reported(
    coordinator: CoordinatorClient, worker: WorkerClient, lease: Lease, rollout: Callable[[str], Rollout]
):
    for number in (1, 2):
        shown = [rollout(f"r{number}-{i}") for i in range(2)]
        report = StepReport(epoch=1, step=number, metrics={}, student_tokens=0, teacher_tokens=0, rollouts=shown)
        await worker.report_step(lease.run_id, report)
    first = await coordinator.rollouts(lease.run_id, limit=3)
    rest = await coordinator.rollouts(lease.run_id, after=first.next)
    assert [(s.step, s.rollout.id) for s in [*first.data, *rest.data]] == [
        (1, "r1-0"),
        (1, "r1-1"),
        (2, "r2-0"),
        (2, "r2-1"),
    ]
    assert rest.next is None
    assert first.data[0].rollout.model_dump(mode="json") == rollout("r1-0").model_dump(mode="json")
