"""Leases: one holder, fenced by the epoch, taken away by the clock, restarted only so often."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from tutelage.coordinator import leases, runs
from tutelage.coordinator.db import Database
from tutelage.coordinator.leases import MAX_RESTARTS
from tutelage.coordinator.settings import Settings
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.errors import ProblemResponse, StaleEpoch
from tutelage_client.wire import (
    CheckpointCommit,
    EventReport,
    Heartbeat,
    Lease,
    Outcome,
    Overload,
    RunError,
    RunStatus,
    StepReport,
    TeacherInfo,
)
from tutelage_client.worker import WorkerClient

Spec = Callable[..., dict[str, Any]]


async def start(coordinator: CoordinatorClient, worker: WorkerClient, spec: dict[str, Any]) -> Lease:
    await coordinator.submit(spec)
    lease = await worker.lease("w1")
    assert lease is not None
    return lease


def step(epoch: int, number: int, **more: Any) -> StepReport:
    return StepReport(epoch=epoch, step=number, **({"metrics": {}, "student_tokens": 0, "teacher_tokens": 0} | more))


def checkpoint(epoch: int, number: int, sha: str = "aa") -> CheckpointCommit:
    return CheckpointCommit(epoch=epoch, step=number, path=f"step-{number}-e{epoch}", weights_sha256=sha)


def test_claimers_at_the_same_moment_share_the_runs_without_a_repeat(
    database: Database, settings: Settings, spec: Spec
):
    with database.write() as session:
        submitted = {runs.submit(session, spec(name=f"r{i}"), None)[0].id for i in range(12)}
    together = threading.Barrier(6)

    def claim_all(worker: str) -> list[str]:
        together.wait(10)
        claimed: list[str] = []
        while True:
            with database.write() as session:
                lease = leases.claim(session, settings, worker)
            if lease is None:
                return claimed
            claimed.append(lease.run_id)

    with ThreadPoolExecutor(6) as pool:
        claimed = [run_id for part in pool.map(claim_all, "abcdef") for run_id in part]
    assert len(claimed) == len(submitted)
    assert set(claimed) == submitted


def test_one_given_run_goes_to_one_of_many_claimers(database: Database, settings: Settings, spec: Spec):
    with database.write() as session:
        run_id = runs.submit(session, spec(), None)[0].id
    together = threading.Barrier(6)

    def claim(worker: str) -> bool:
        together.wait(10)
        try:
            with database.write() as session:
                return leases.claim_run(session, settings, run_id, worker).epoch == 1
        except leases.ServiceProblem as error:
            assert error.code == "run_not_queued"
            return False

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(claim, "abcdef")) == 1


async def test_the_oldest_queued_run_is_leased_first_with_all_that_a_trainer_needs(
    coordinator: CoordinatorClient,
    worker: WorkerClient,
    taught: Spec,
    teacher_info: Callable[..., TeacherInfo],
    settings: Settings,
):
    await coordinator.register_teacher("walker", "http://127.0.0.1:9", teacher_info())
    first = await coordinator.submit(taught(name="first"))
    await coordinator.submit(taught(name="second"))
    lease = await worker.lease("w1")
    assert lease is not None
    assert (lease.run_id, lease.epoch, lease.checkpoint) == (first.id, 1, None)
    assert lease.spec["name"] == "first"
    assert lease.spec["optim"]["micro_batch_tokens"] == 8192, "the spec is stored resolved"
    assert lease.artefacts == str(settings.artefacts(first.id))
    assert lease.teachers["walker"].available
    assert lease.teachers["walker"].url == "http://127.0.0.1:9"
    assert (await coordinator.run(first.id)).status is RunStatus.STARTING


async def test_without_work_a_lease_request_waits_and_then_has_no_content(
    worker: WorkerClient, http: httpx2.AsyncClient
):
    assert await worker.lease("w1", wait_s=0.3) is None
    answer = await http.post("/internal/v1/leases", json={"worker": "w1"})
    assert (answer.status_code, answer.content) == (204, b"")


async def test_a_child_takes_over_the_lease_of_its_parent(
    coordinator: CoordinatorClient, worker: WorkerClient, spec: Spec
):
    lease = await start(coordinator, worker, spec())
    adopted = await worker.lease_run(lease.run_id, "child", epoch=lease.epoch)
    assert adopted.model_copy(update={"token": lease.token}) == lease
    assert adopted.token != lease.token, "the parent holds nothing any more"
    with pytest.raises(StaleEpoch):
        await worker.lease_run(lease.run_id, "child", epoch=lease.epoch + 1)
    with pytest.raises(ProblemResponse) as refused:
        await worker.lease_run(lease.run_id, "another")
    assert refused.value.code == "run_not_queued"


async def test_a_run_goes_through_its_statuses_to_success(
    coordinator: CoordinatorClient, worker: WorkerClient, spec: Spec
):
    lease = await start(coordinator, worker, spec())
    seen = []
    for status in ("validating", "running", "finalizing"):
        reply = await worker.heartbeat(lease.run_id, Heartbeat(epoch=1, status=status, conditions={"teacher": True}))
        assert (reply.desired, reply.expires_in_s) == ("run", 30.0)
        seen.append((await coordinator.run(lease.run_id)).status)
    await worker.report_outcome(lease.run_id, Outcome(epoch=1, result="succeeded"))
    run = await coordinator.run(lease.run_id)
    assert [*seen, run.status] == ["validating", "running", "finalizing", "succeeded"]
    assert run.conditions == {"teacher": True}
    assert run.started_at is not None and run.ended_at is not None
    assert run.created_at <= run.started_at <= run.ended_at


async def test_a_run_keeps_who_its_teachers_are_whatever_is_registered_later(
    coordinator: CoordinatorClient, worker: WorkerClient, taught: Spec, teacher_info: Callable[..., TeacherInfo]
):
    info = teacher_info()
    await coordinator.register_teacher("walker", "http://127.0.0.1:9", info)
    lease = await start(coordinator, worker, taught())
    await worker.heartbeat(lease.run_id, Heartbeat(epoch=1, status="validating"))
    assert (await coordinator.run(lease.run_id)).teachers is None
    who = {"walker": info.provenance}
    await worker.heartbeat(lease.run_id, Heartbeat(epoch=1, status="running", teachers=who))
    other = info.provenance.model_copy(update={"model_revision": "another"})
    await coordinator.register_teacher("walker", "http://127.0.0.1:9", info.model_copy(update={"provenance": other}))
    await worker.heartbeat(lease.run_id, Heartbeat(epoch=1, status="running"))
    assert (await coordinator.run(lease.run_id)).teachers == who


async def test_a_late_heartbeat_does_not_take_the_status_back(
    coordinator: CoordinatorClient, worker: WorkerClient, spec: Spec
):
    lease = await start(coordinator, worker, spec())
    await worker.heartbeat(lease.run_id, Heartbeat(epoch=1, status="running"))
    await worker.heartbeat(lease.run_id, Heartbeat(epoch=1, status="validating"))
    assert (await coordinator.run(lease.run_id)).status is RunStatus.RUNNING


WRITES: dict[str, Callable[[int], Any]] = {
    "lease": lambda epoch: {"worker": "w", "epoch": epoch},
    "heartbeat": lambda epoch: Heartbeat(epoch=epoch, status="running").model_dump(mode="json"),
    "steps": lambda epoch: step(epoch, 1).model_dump(mode="json"),
    "events": lambda epoch: EventReport(epoch=epoch, type="log", message="m").model_dump(mode="json"),
    "checkpoints": lambda epoch: checkpoint(epoch, 1).model_dump(mode="json"),
    "outcome": lambda epoch: Outcome(epoch=epoch, result="succeeded").model_dump(mode="json"),
}


def test_every_write_of_a_worker_is_among_those_tested(app: Any):
    routes = {
        path for path, verbs in app.openapi()["paths"].items() if path.startswith("/internal") and "post" in verbs
    }
    assert routes == {"/internal/v1/leases"} | {f"/internal/v1/runs/{{run_id}}/{what}" for what in WRITES}


@pytest.mark.parametrize("what", WRITES)
async def test_an_older_epoch_is_refused_and_changes_nothing(
    what: str,
    http: httpx2.AsyncClient,
    coordinator: CoordinatorClient,
    worker: WorkerClient,
    spec: Spec,
    database: Database,
    expire: Callable[[str], None],
):
    lease = await start(coordinator, worker, spec())
    expire(lease.run_id)
    assert leases.sweep(database) == 1
    path = f"/internal/v1/runs/{lease.run_id}/{what}"
    lost = await http.post(path, json=WRITES[what](1))
    assert await worker.lease_run(lease.run_id, "w2") is not None
    before = await coordinator.run(lease.run_id), await coordinator.event_page(lease.run_id)
    older = await http.post(path, json=WRITES[what](1))
    for answer in (lost, older):
        assert (answer.status_code, answer.json()["code"]) == (409, "stale_epoch")
    assert before == (await coordinator.run(lease.run_id), await coordinator.event_page(lease.run_id))


async def test_an_expired_lease_queues_the_run_again_with_its_history(
    coordinator: CoordinatorClient, worker: WorkerClient, spec: Spec, database: Database, expire: Callable[[str], None]
):
    lease = await start(coordinator, worker, spec())
    assert leases.sweep(database) == 0, "a lease in time stays"
    expire(lease.run_id)
    assert leases.sweep(database) == 1
    run = await coordinator.run(lease.run_id)
    assert (run.status, run.status_reason, run.epoch) == ("queued", "lease_expired", 1)
    moves = [e.data["to"] for e in (await coordinator.event_page(run.id)).data]
    assert moves == ["queued", "starting", "recovering", "queued"]


async def test_a_new_attempt_resumes_from_the_newest_checkpoint_and_forgets_what_lies_beyond(
    coordinator: CoordinatorClient, worker: WorkerClient, spec: Spec
):
    lease = await start(coordinator, worker, spec())
    for number in range(1, 5):
        await worker.report_step(lease.run_id, step(1, number, metrics={"reverse_kl": 1 / number}))
        if number <= 2:
            await worker.commit_checkpoint(lease.run_id, checkpoint(1, number))
    await worker.report_outcome(lease.run_id, Outcome(epoch=1, result="crashed"))
    again = await worker.lease("w2")
    assert again is not None and again.checkpoint is not None
    assert (again.run_id, again.epoch, again.checkpoint.step) == (lease.run_id, 2, 2)
    assert again.checkpoint.path == "step-2-e1"
    assert (await coordinator.run(lease.run_id)).step == 2
    assert [row["step"] for row in await coordinator.metrics(lease.run_id)] == [1, 2]


async def crash(worker: WorkerClient, run_id: str) -> int:
    lease = await worker.lease("w")
    assert lease is not None and lease.run_id == run_id
    await worker.report_outcome(run_id, Outcome(epoch=lease.epoch, result="crashed"))
    return lease.epoch


async def test_a_run_that_crashes_without_progress_fails_after_its_restarts(
    coordinator: CoordinatorClient, worker: WorkerClient, spec: Spec
):
    run = await coordinator.submit(spec())
    for _ in range(MAX_RESTARTS):
        await crash(worker, run.id)
        assert (await coordinator.run(run.id)).status is RunStatus.QUEUED
    await crash(worker, run.id)
    failed = await coordinator.run(run.id)
    assert failed.status is RunStatus.FAILED
    assert failed.error is not None
    assert (failed.error.code, failed.error.category, failed.error.attempt) == ("crashed", "infra", MAX_RESTARTS + 1)


async def test_a_new_checkpoint_forgives_earlier_crashes_and_an_old_one_does_not(
    coordinator: CoordinatorClient, worker: WorkerClient, spec: Spec
):
    run = await coordinator.submit(spec())
    for number in range(1, 2 * MAX_RESTARTS):
        lease = await worker.lease("w")
        assert lease is not None
        await worker.commit_checkpoint(run.id, checkpoint(lease.epoch, number))
        await worker.report_outcome(run.id, Outcome(epoch=lease.epoch, result="crashed"))
    for _ in range(MAX_RESTARTS):
        lease = await worker.lease("w")
        assert lease is not None
        await worker.commit_checkpoint(run.id, checkpoint(lease.epoch, 2 * MAX_RESTARTS - 1))
        await worker.report_outcome(run.id, Outcome(epoch=lease.epoch, result="crashed"))
    assert (await coordinator.run(run.id)).status is RunStatus.FAILED


async def test_a_failure_carries_its_reason_and_is_final(
    coordinator: CoordinatorClient, worker: WorkerClient, spec: Spec
):
    lease = await start(coordinator, worker, spec())
    error = RunError(
        code="invalid_input", message="data.train: line 3 has no prompt", category="user", field="data.train"
    )
    await worker.report_outcome(lease.run_id, Outcome(epoch=1, result="failed", error=error))
    run = await coordinator.run(lease.run_id)
    assert (run.status, run.error, run.status_reason) == ("failed", error, "invalid_input")
    assert await worker.lease("w2") is None
    with pytest.raises(ProblemResponse) as refused:
        await coordinator.cancel(run.id)
    assert refused.value.code == "run_is_final"
    assert "is failed, which does not allow cancel; it allows fork" in refused.value.detail


async def test_an_outcome_whose_answer_was_lost_may_be_sent_again(
    coordinator: CoordinatorClient, worker: WorkerClient, spec: Spec
):
    lease = await start(coordinator, worker, spec())
    for _ in range(2):
        await worker.report_outcome(lease.run_id, Outcome(epoch=1, result="crashed"))
    moves = [e.data["to"] for e in (await coordinator.event_page(lease.run_id)).data]
    assert moves.count("recovering") == 1


async def test_a_queued_run_is_cancelled_at_once_and_a_running_one_through_its_trainer(
    coordinator: CoordinatorClient, worker: WorkerClient, spec: Spec
):
    queued = await coordinator.submit(spec())
    assert (await coordinator.cancel(queued.id)).status is RunStatus.CANCELLED
    assert (await coordinator.cancel(queued.id)).status is RunStatus.CANCELLED, "asking twice changes nothing"
    lease = await start(coordinator, worker, spec())
    assert (await coordinator.cancel(lease.run_id)).status is RunStatus.CANCELLING
    reply = await worker.heartbeat(lease.run_id, Heartbeat(epoch=1, status="running"))
    assert reply.desired == "cancel"
    await worker.report_outcome(lease.run_id, Outcome(epoch=1, result="cancelled"))
    assert (await coordinator.run(lease.run_id)).status is RunStatus.CANCELLED


async def test_a_run_whose_trainer_dies_while_cancelling_is_cancelled(
    coordinator: CoordinatorClient, worker: WorkerClient, spec: Spec, database: Database, expire: Callable[[str], None]
):
    lease = await start(coordinator, worker, spec())
    await coordinator.cancel(lease.run_id)
    expire(lease.run_id)
    leases.sweep(database)
    assert (await coordinator.run(lease.run_id)).status is RunStatus.CANCELLED


async def test_pause_and_resume(coordinator: CoordinatorClient, worker: WorkerClient, spec: Spec):
    lease = await start(coordinator, worker, spec())
    await worker.heartbeat(lease.run_id, Heartbeat(epoch=1, status="running"))
    assert (await coordinator.pause(lease.run_id)).status is RunStatus.PAUSING
    reply = await worker.heartbeat(lease.run_id, Heartbeat(epoch=1, status="running"))
    assert reply.desired == "pause"
    await worker.commit_checkpoint(lease.run_id, checkpoint(1, 7))
    await worker.report_outcome(lease.run_id, Outcome(epoch=1, result="paused"))
    assert (await coordinator.run(lease.run_id)).status is RunStatus.PAUSED
    assert await worker.lease("w2") is None
    assert (await coordinator.resume(lease.run_id)).status is RunStatus.QUEUED
    again = await worker.lease("w2")
    assert again is not None and again.checkpoint is not None
    assert (again.epoch, again.checkpoint.step) == (2, 7)


async def test_a_trainer_that_drains_unasked_gives_the_run_back_without_a_crash(
    coordinator: CoordinatorClient, worker: WorkerClient, spec: Spec
):
    run = await coordinator.submit(spec())
    for _ in range(MAX_RESTARTS + 2):
        lease = await worker.lease("w")
        assert lease is not None
        await worker.report_outcome(run.id, Outcome(epoch=lease.epoch, result="paused"))
    assert (await coordinator.run(run.id)).status is RunStatus.QUEUED


async def test_a_paused_run_that_was_resumed_before_it_stopped_is_queued(
    coordinator: CoordinatorClient, worker: WorkerClient, spec: Spec
):
    lease = await start(coordinator, worker, spec())
    await coordinator.pause(lease.run_id)
    await coordinator.resume(lease.run_id)
    await worker.report_outcome(lease.run_id, Outcome(epoch=1, result="paused"))
    assert (await coordinator.run(lease.run_id)).status is RunStatus.QUEUED


async def test_a_cancelled_run_cannot_be_paused_or_resumed(
    coordinator: CoordinatorClient, worker: WorkerClient, spec: Spec
):
    lease = await start(coordinator, worker, spec())
    await coordinator.cancel(lease.run_id)
    for ask in (coordinator.pause, coordinator.resume):
        with pytest.raises(ProblemResponse) as refused:
            await ask(lease.run_id)
        assert refused.value.code == "run_is_cancelling"


async def test_a_run_that_waits_for_the_limits_of_an_upstream_says_so_and_once(
    coordinator: CoordinatorClient, worker: WorkerClient, taught: Spec, teacher_info: Callable[..., TeacherInfo]
):
    info = teacher_info()
    await coordinator.register_teacher("walker", "http://127.0.0.1:9", info)
    lease = await start(coordinator, worker, taught())
    beat = Heartbeat(epoch=1, status="running", conditions={"teacher_available": True})

    async def told(overload: Overload | None) -> tuple[dict[str, bool], list[str]]:
        """The run's conditions and events after two heartbeats of a trainer whose teacher has said this."""
        await coordinator.register_teacher(
            "walker", "http://127.0.0.1:9", info.model_copy(update={"overload": overload})
        )
        for _ in range(2):
            await worker.heartbeat(lease.run_id, beat)
        page = await coordinator.event_page(lease.run_id)
        events = [event.message for event in page.data if event.type == "teacher"]
        return (await coordinator.run(lease.run_id)).conditions, events

    name = "teacher_within_limits/walker"
    assert await told(None) == ({"teacher_available": True}, [])
    assert await told(Overload(lasting_s=0.5, retry_after_s=1, reason="r")) == ({"teacher_available": True}, [])
    conditions, events = await told(Overload(lasting_s=4, retry_after_s=30, reason="status 429 at /chat: too much"))
    assert conditions == {"teacher_available": True, name: False}
    (event,) = events
    for part in ("'walker'", "takes no work for 4 s", "Retry-After 30 s", "status 429 at /chat: too much"):
        assert part in event
    conditions, events = await told(None)
    assert conditions == {"teacher_available": True, name: True}
    assert events[1:] == ["the upstream of teacher 'walker' takes work again"]
