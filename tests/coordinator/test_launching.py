"""Runs that nobody asks for are launched, once an attempt, whatever becomes of the trainers and the coordinators."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any

import pytest
from launched import Recorder

from tutelage.coordinator.db import Database
from tutelage.coordinator.launchers import Launch, LaunchStatus
from tutelage.coordinator.launching import Launching
from tutelage.coordinator.leases import MAX_RESTARTS
from tutelage.coordinator.settings import Settings
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.wire import Heartbeat, Outcome, RunStatus
from tutelage_client.worker import WorkerClient

Spec = Callable[..., dict[str, Any]]


@pytest.fixture
def launcher() -> Recorder:
    return Recorder()


@pytest.fixture
def launching(database: Database, settings: Settings, launcher: Recorder) -> Callable[..., Launching]:
    """One coordinator's share, with other settings."""

    def build(**changed: Any) -> Launching:
        return Launching(database, settings.model_copy(update={"launch_after_s": 0.0} | changed), launcher)

    return build


async def messages(coordinator: CoordinatorClient, run_id: str) -> list[str]:
    return [event.message for event in (await coordinator.event_page(run_id)).data if event.type == "log"]


async def test_a_run_that_waits_is_launched_once_by_any_number_of_coordinators(
    coordinator: CoordinatorClient, launching: Callable[..., Launching], launcher: Recorder, spec: Spec
):
    run = await coordinator.submit(spec())
    coordinators = [launching() for _ in range(4)]
    for _ in range(3):
        await asyncio.gather(*(each.look() for each in coordinators))
    launch = Launch(run.id, 1)
    assert set(launcher.known) == {launch}
    assert await messages(coordinator, run.id) == [f"a trainer is launched: subprocess {launch.name}"]


async def test_a_run_is_not_launched_while_a_trainer_may_come_or_has_it(
    coordinator: CoordinatorClient,
    worker: WorkerClient,
    launching: Callable[..., Launching],
    launcher: Recorder,
    spec: Spec,
):
    run = await coordinator.submit(spec())
    await launching(launch_after_s=3600.0).look()
    assert await worker.lease("a trainer that asked") is not None
    await launching().look()
    assert (launcher.known, (await coordinator.run(run.id)).status) == ({}, RunStatus.STARTING)


async def test_as_many_trainers_as_may_be_are_launched_for_the_oldest_runs_first(
    coordinator: CoordinatorClient, launching: Callable[..., Launching], launcher: Recorder, spec: Spec
):
    runs = [(await coordinator.submit(spec(name=f"r{number}"))).id for number in range(4)]
    two = launching(launch_at_most=2)
    for _ in range(3):
        await two.look()
    assert set(launcher.known) == {Launch(runs[0], 1), Launch(runs[1], 1)}
    launcher.end(Launch(runs[0], 1), 0)
    await coordinator.cancel(runs[0])
    for _ in range(3):
        await two.look()
    assert set(launcher.known) == {Launch(run, 1) for run in runs[:3]}


@pytest.mark.parametrize("code", [137, 70, 1, None])
async def test_an_attempt_whose_trainer_died_is_over_at_once_and_the_next_one_is_launched(
    code: int | None,
    coordinator: CoordinatorClient,
    worker: WorkerClient,
    launching: Callable[..., Launching],
    launcher: Recorder,
    spec: Spec,
):
    run = await coordinator.submit(spec())
    ours = launching()
    await ours.look()
    first = Launch(run.id, 1)
    await worker.lease_run(run.id, first.name)
    launcher.known[first] = LaunchStatus("running")
    await ours.look()
    assert (await coordinator.run(run.id)).status is RunStatus.STARTING
    launcher.end(first, code)
    await ours.look()
    await ours.look()
    assert set(launcher.known) == {first, Launch(run.id, 2)}
    after = await coordinator.run(run.id)
    assert (after.status, after.status_reason, after.epoch) == (RunStatus.QUEUED, "crashed", 1)


@pytest.mark.parametrize("code", [0, 64, 69, 75, 86])
async def test_a_trainer_that_says_itself_how_it_ended_is_not_spoken_for(
    code: int,
    coordinator: CoordinatorClient,
    worker: WorkerClient,
    launching: Callable[..., Launching],
    launcher: Recorder,
    spec: Spec,
    expire: Callable[[str], None],
):
    """Where its word was lost, the lease runs out."""
    run = await coordinator.submit(spec())
    ours = launching()
    await ours.look()
    await worker.lease_run(run.id, Launch(run.id, 1).name)
    launcher.end(Launch(run.id, 1), code)
    await ours.look()
    assert (await coordinator.run(run.id)).status is RunStatus.STARTING


async def test_the_end_of_a_trainer_that_was_told_to_the_coordinator_stands(
    coordinator: CoordinatorClient,
    worker: WorkerClient,
    launching: Callable[..., Launching],
    launcher: Recorder,
    spec: Spec,
):
    run = await coordinator.submit(spec())
    ours = launching()
    await ours.look()
    await worker.lease_run(run.id, Launch(run.id, 1).name)
    await worker.heartbeat(run.id, Heartbeat(epoch=1, status="running"))
    await worker.report_outcome(run.id, Outcome(epoch=1, result="succeeded"))
    launcher.end(Launch(run.id, 1), 1)  # as torchrun ends, whatever its workers ended with
    await ours.look()
    assert (await coordinator.run(run.id)).status is RunStatus.SUCCEEDED
    assert set(launcher.known) == {Launch(run.id, 1)}


async def test_a_trainer_that_waits_for_runs_and_is_called_like_a_launch_is_left_alone(
    coordinator: CoordinatorClient,
    worker: WorkerClient,
    launching: Callable[..., Launching],
    launcher: Recorder,
    spec: Spec,
):
    run = await coordinator.submit(spec())
    await worker.lease("some-host-e1")
    launcher.end(Launch("some-host", 1), 137)
    await launching().look()
    assert (await coordinator.run(run.id)).status is RunStatus.STARTING


async def test_launches_that_end_before_they_take_the_run_end_it_in_time(
    coordinator: CoordinatorClient, launching: Callable[..., Launching], launcher: Recorder, spec: Spec
):
    run = await coordinator.submit(spec())
    ours = launching()
    for attempt in range(1, MAX_RESTARTS + 2):
        await ours.look()
        assert Launch(run.id, attempt) in launcher.known
        launcher.end(Launch(run.id, attempt), 137)
        await ours.look()
    failed = await coordinator.run(run.id)
    assert failed.error is not None
    assert (failed.status, failed.error.code, failed.error.category) == (RunStatus.FAILED, "launch_failed", "infra")
    assert "was killed by signal 9" in failed.error.message


async def test_a_trainer_that_refuses_to_start_is_not_launched_again(
    coordinator: CoordinatorClient, launching: Callable[..., Launching], launcher: Recorder, spec: Spec
):
    run = await coordinator.submit(spec())
    ours = launching()
    await ours.look()
    launcher.end(Launch(run.id, 1), 64)
    await ours.look()
    failed = await coordinator.run(run.id)
    assert (failed.status, failed.status_reason) == (RunStatus.FAILED, "launch_failed")
    assert (await messages(coordinator, run.id))[-1].endswith(f"its log says why: tutelage runs logs {run.id}")


async def test_a_trainer_that_was_told_to_go_before_it_took_the_run_counts_as_no_crash(
    coordinator: CoordinatorClient, launching: Callable[..., Launching], launcher: Recorder, spec: Spec
):
    """As when a node is drained: the run is launched as often as it takes."""
    run = await coordinator.submit(spec())
    ours = launching()
    for attempt in range(1, MAX_RESTARTS + 4):
        await ours.look()
        launcher.end(Launch(run.id, attempt), 143)
        await ours.look()
    assert (await coordinator.run(run.id)).status is RunStatus.QUEUED


async def test_a_launch_that_nobody_wants_is_told_to_go_and_then_killed(
    coordinator: CoordinatorClient, launching: Callable[..., Launching], launcher: Recorder, spec: Spec
):
    run = await coordinator.submit(spec())
    patient, ours = launching(lease_s=3600.0), launching(lease_s=0.05)
    for each in (patient, ours):
        await each.look()
    await coordinator.cancel(run.id)
    await patient.look()
    assert launcher.told == [], "it may end by itself"
    async with asyncio.timeout(10):
        while (Launch(run.id, 1), signal.SIGKILL) not in launcher.told:
            await ours.look()
    assert [number for _, number in launcher.told[:2]] == [signal.SIGTERM, signal.SIGKILL]
    launcher.end(Launch(run.id, 1), None)
    told = list(launcher.told)
    await ours.look()
    assert launcher.told == told


async def test_an_attempt_whose_launch_was_forgotten_is_counted_and_the_next_one_launched(
    coordinator: CoordinatorClient, launching: Callable[..., Launching], launcher: Recorder, spec: Spec
):
    """As in a cluster a day after a Job's end, or where somebody deleted it."""
    run = await coordinator.submit(spec())
    first, second = Launch(run.id, 1), Launch(run.id, 2)
    await launching().look()
    await coordinator.pause(run.id)
    launcher.known.clear()
    await coordinator.resume(run.id)
    coordinators = [launching() for _ in range(3)]
    for _ in range(3):
        await asyncio.gather(*(each.look() for each in coordinators))
    assert set(launcher.known) == {second}
    told = await messages(coordinator, run.id)
    assert told[0] == f"a trainer is launched: subprocess {first.name}"
    assert told[1].startswith(f"the launched trainer {first.name} ended, and nobody saw how (nothing is left of it)")
    assert told[2:] == [f"a trainer is launched: subprocess {second.name}"]


async def test_a_launch_is_told_of_though_the_run_was_paused_meanwhile(
    coordinator: CoordinatorClient, launching: Callable[..., Launching], launcher: Recorder, spec: Spec
):
    run = await coordinator.submit(spec())
    launcher.meanwhile = lambda: coordinator.pause(run.id)
    await launching().look()
    assert await messages(coordinator, run.id) == [f"a trainer is launched: subprocess {run.id}-e1"]


async def test_a_bug_in_a_launcher_is_logged_and_launching_goes_on(
    coordinator: CoordinatorClient,
    launching: Callable[..., Launching],
    launcher: Recorder,
    spec: Spec,
    until: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
):
    run = await coordinator.submit(spec())
    launcher.bug = ValueError("520 is not a valid HTTPStatus")
    task = asyncio.create_task(launching().forever(poll_s=0.01))
    await until(lambda: "520 is not a valid HTTPStatus" in caplog.text)
    launcher.bug = None
    await until(lambda: Launch(run.id, 1) in launcher.known)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_launcher_that_is_away_is_asked_again(
    coordinator: CoordinatorClient,
    launching: Callable[..., Launching],
    launcher: Recorder,
    spec: Spec,
    until: Callable[..., Any],
):
    run = await coordinator.submit(spec())
    launcher.away = True
    task = asyncio.create_task(launching().forever(poll_s=0.01))
    await until(lambda: launcher.refusals > 2)
    assert launcher.known == {}
    launcher.away = False
    await until(lambda: Launch(run.id, 1) in launcher.known)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
