"""Rollouts of ended runs are deleted when they are due, a little at a time, and nothing else is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest
from sqlalchemy import update

from tutelage.coordinator.db import Database, now
from tutelage.coordinator.retention import AT_ONCE, DAY_S, ended, forget
from tutelage.coordinator.settings import Settings
from tutelage.coordinator.tables import RunRow
from tutelage.coordinator.working_files import RUNS_AT_ONCE
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.wire import Forgotten, Inspection, Outcome, Rollout, RunView, StepReport
from tutelage_client.worker import WorkerClient

MakeRollout = Callable[[str], Rollout]
Made = Callable[..., Awaitable[RunView]]


@pytest.fixture
def made(
    coordinator: CoordinatorClient,
    worker: WorkerClient,
    database: Database,
    pushed_spec: dict[str, Any],
    rollout: MakeRollout,
    inspection: Inspection,
) -> Made:
    """A run with a shown rollout and `pushed` ones, which ended so many days ago, or goes on."""

    async def make(days_ago: float | None, pushed: int = 2) -> RunView:
        run = await coordinator.submit(pushed_spec)
        await coordinator.push_rollouts(run.id, [rollout(f"pushed-{number}") for number in range(pushed)])
        lease = await worker.lease_run(run.id, "w")
        told = {"metrics": {"loss": 1.0}, "student_tokens": 1, "teacher_tokens": 1}
        report = StepReport(
            epoch=lease.epoch, step=1, rollouts=[rollout("shown")], inspections={"shown": inspection}, **told
        )
        await worker.report_step(run.id, report)
        if days_ago is not None:
            await worker.report_outcome(run.id, Outcome(epoch=lease.epoch, result="cancelled"))
            with database.write() as session:
                row = update(RunRow).where(RunRow.id == run.id)
                session.execute(row.values(ended_at=now() - days_ago * DAY_S))
        return run

    return make


async def test_what_is_due_is_deleted_and_the_rest_of_the_run_stays(coordinator: CoordinatorClient, made: Made) -> None:
    old, fresh, going_on = [await made(days_ago) for days_ago in (10, 8, None)]
    assert await coordinator.forget_rollouts(9) == Forgotten(shown=1, pushed=2)
    assert await coordinator.forget_rollouts(9) == Forgotten(shown=0, pushed=0)
    shown = [len((await coordinator.rollouts(run.id)).data) for run in (old, fresh, going_on)]
    assert shown == [0, 1, 1]
    assert [row["loss"] for row in await coordinator.metrics(old.id)] == [1.0]


async def test_a_call_deletes_no_more_than_others_can_wait_for(database: Database, made: Made) -> None:
    await made(2, pushed=AT_ONCE + 1)
    gone: list[Forgotten] = []
    while not gone or gone[-1].any:
        with database.write() as session:
            gone.append(forget(session, ended(1)))
    assert [each.pushed for each in gone] == [AT_ONCE, 1, 0]


async def test_a_project_deletes_its_own_alone(database: Database, made: Made) -> None:
    await made(2)
    with database.write() as session:
        assert not forget(session, ended(1, "another")).any
        assert forget(session, ended(1, "default")).any


@pytest.mark.parametrize("days", [0, -1, 1e9])
async def test_days_that_are_none_are_refused(http: httpx2.AsyncClient, days: float) -> None:
    answer = await http.post("/v1/gc", json={"days": days})
    assert (answer.status_code, answer.json()["field"]) == (422, "days")


async def test_what_trainers_of_ended_runs_worked_with_goes_and_their_models_stay(
    coordinator: CoordinatorClient, made: Made, settings: Settings
) -> None:
    old, fresh, going_on = [await made(days_ago) for days_ago in (10, 8, None)]
    for run in (old, fresh, going_on):
        for name in ("checkpoints/step-00000001-e1/model", "inputs/file-1", "model-e1"):
            (settings.artefacts(run.id) / name).mkdir(parents=True)
            (settings.artefacts(run.id) / name / "model.safetensors").write_bytes(b"weights")
    (settings.artefacts_root / "lost+found").mkdir()
    assert (await coordinator.forget_rollouts(9)).runs == 0, "it was not asked for"
    assert (await coordinator.forget_rollouts(9, files=True)).runs == 1
    assert (await coordinator.forget_rollouts(9, files=True)).runs == 0
    left = [sorted(path.name for path in settings.artefacts(run.id).iterdir()) for run in (old, fresh, going_on)]
    everything = ["checkpoints", "inputs", "model-e1"]
    assert left == [["model-e1"], everything, everything]
    assert (settings.artefacts(old.id) / "model-e1" / "model.safetensors").read_bytes() == b"weights"


async def test_of_a_hundred_runs_a_call_deletes_the_files_of_a_part(
    coordinator: CoordinatorClient, database: Database, made: Made, settings: Settings
) -> None:
    run = await made(2)
    with database.write() as session:
        row = session.get(RunRow, run.id)
        own = {column.key: getattr(row, column.key) for column in RunRow.__table__.columns} | {"idempotency_key": None}
        session.add_all(RunRow(**own | {"id": f"run-{number}"}) for number in range(RUNS_AT_ONCE))
    for number in range(RUNS_AT_ONCE):
        (settings.artefacts(f"run-{number}") / "inputs").mkdir(parents=True)
    (settings.artefacts(run.id) / "checkpoints").mkdir(parents=True)
    assert [(await coordinator.forget_rollouts(1, files=True)).runs for _ in range(3)] == [RUNS_AT_ONCE, 1, 0]
