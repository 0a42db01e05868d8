"""The audit: every change is told of in its own transaction, refusals in a bounded number, each project its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from bare_checkpoint import bare_checkpoint
from dashboard_pages import shown
from fastapi import FastAPI
from guarded import FILES, URL, as_key, made
from sqlalchemy import update

from tutelage.coordinator import audit
from tutelage.coordinator.access import ACTIONS, NEEDS
from tutelage.coordinator.app import build_app
from tutelage.coordinator.callers import Caller
from tutelage.coordinator.db import Database, now
from tutelage.coordinator.retention import DAY_S
from tutelage.coordinator.settings import Settings
from tutelage.coordinator.tables import AuditRow
from tutelage.coordinator.uploads import Partial
from tutelage.queue import Job, MemoryQueue
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.errors import ProblemResponse
from tutelage_client.tracing import run_trace, traceparent
from tutelage_client.wire import (
    PROJECT,
    Action,
    AuditEntry,
    CheckpointCommit,
    EventReport,
    Heartbeat,
    KeyRequest,
    Lease,
    Outcome,
    Rollout,
    RunChanges,
    Scope,
    StepReport,
    TeacherInfo,
)
from tutelage_client.worker import WorkerClient

TOLD = {name: action for name, action in ACTIONS.items() if action is not None}


async def entries(client: CoordinatorClient, **wanted: Any) -> list[AuditEntry]:
    return (await client.audit(limit=200, **wanted)).data


@pytest.fixture
async def admin(guarded_app: FastAPI, database: Database) -> AsyncIterator[CoordinatorClient]:
    async with CoordinatorClient(URL, FILES["admin"], httpx2.ASGITransport(guarded_app)) as client:
        yield client


def test_the_table_of_actions_has_every_route_that_changes_something() -> None:
    assert {name for name in NEEDS if not name.startswith("GET ")} == set(ACTIONS)


async def test_every_route_of_the_table_is_told_of_and_no_other(
    settings: Settings,
    database: Database,
    taught: Callable[..., Any],
    pushed_spec: dict[str, Any],
    teacher_info: Callable[..., TeacherInfo],
    rollout: Callable[[str], Rollout],
    tmp_path: Path,
) -> None:
    """All of them are asked here, what trainers report included: one without its entry fails this, a new one too."""
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("in parts")
    queue = MemoryQueue()
    transport = httpx2.ASGITransport(build_app(settings, database, queue))
    async with CoordinatorClient(URL, transport=transport) as owner, WorkerClient(URL, transport=transport) as worker:
        await owner.register_teacher("walker", "http://127.0.0.1:9", teacher_info())
        file = await owner.upload(b"prompts")
        await owner.upload(prompts)
        await owner.delete_file(file.id)
        Partial(settings.files, PROJECT, "a" * 64).append(0, b"not all")
        await owner.delete_upload("a" * 64)
        run = await owner.submit(taught())
        await owner.change(run.id, RunChanges(note="n"))
        await owner.pause(run.id)
        await owner.resume(run.id)
        await _bury(queue, run.id, "a", "b")
        await owner.replay_dead_letter(run.id, "a")
        await owner.discard_dead_letter(run.id, "b")
        lease = await worker.lease("w")
        assert lease is not None
        await _reported(worker, lease)
        await owner.fork(run.id)
        pushed = await owner.submit(pushed_spec)
        await owner.push_rollouts(pushed.id, [rollout("r-1")])
        await worker.lease_run(pushed.id, "w")
        for each in (await owner.runs()).data:
            if not each.status.final:
                await owner.cancel(each.id)
        await worker.report_outcome(pushed.id, Outcome(epoch=1, result="cancelled"))
        assert (await owner.forget_rollouts(1e-9)).pushed == 1
        await owner.remove_teacher("walker")
        key = (await owner.create_key(KeyRequest(name="ci", scopes=frozenset({Scope.RUNS_READ})))).key
        await owner.revoke_key(key.id)
        told = await entries(owner)
    assert {entry.route: entry.action for entry in told} == TOLD
    assert {entry.actor for entry in told} == {"anyone"}
    assert [entry.id for entry in told] == sorted((entry.id for entry in told), reverse=True)
    targets = {entry.action: entry.target for entry in told}
    assert targets[Action.KEY_CREATE] == targets[Action.KEY_REVOKE] == key.id
    assert (targets[Action.LETTER_REPLAY], targets[Action.TEACHER_REGISTER]) == (f"{run.id}/a", "walker")
    assert {entry.action: entry.status for entry in told}[Action.RUN_SUBMIT] == 201


async def _bury(queue: MemoryQueue, run_id: str, *names: str) -> None:
    await queue.put([Job(name, "walker", run_id, run_id, 7, b"question") for name in names])
    for delivery in await queue.lease("walker", "worker-1", count=len(names), wait_s=0):
        await queue.fail(delivery, "cannot score it", retry=False)


async def _reported(worker: WorkerClient, lease: Lease) -> None:
    """An attempt that tells everything that one can, and fails behind a checkpoint."""
    path = bare_checkpoint(lease.artefacts)
    saved = CheckpointCommit(epoch=lease.epoch, step=1, path=path, weights_sha256="a" * 64)
    step = {"epoch": lease.epoch, "step": 1, "metrics": {}, "student_tokens": 1, "teacher_tokens": 1}
    await worker.heartbeat(lease.run_id, Heartbeat(epoch=lease.epoch, status="running"))
    await worker.report_step(lease.run_id, StepReport.model_validate(step))
    await worker.report_event(lease.run_id, EventReport(epoch=lease.epoch, type="log", message="m"))
    await worker.commit_checkpoint(lease.run_id, saved)
    for _ in range(2):  # the second time as if the first answer had been lost
        await worker.report_outcome(lease.run_id, Outcome(epoch=lease.epoch, result="failed"))


async def test_what_changes_nothing_is_not_told_of(
    coordinator: CoordinatorClient, worker: WorkerClient, spec: Callable[..., Any], teacher_info: Callable[..., Any]
) -> None:
    assert await worker.lease("w") is None
    run = await coordinator.submit(spec(), "the-same-key")
    for _ in range(2):
        assert await coordinator.submit(spec(), "the-same-key") == run
        await coordinator.upload(b"the same")
        await coordinator.register_teacher("walker", "http://127.0.0.1:9", teacher_info())
    with pytest.raises(ProblemResponse):
        await coordinator.submit(spec(teachers=[{"name": "nobody"}]))
    await coordinator.cancel(run.id)
    with pytest.raises(ProblemResponse):
        await coordinator.pause(run.id)
    actions = [entry.action for entry in await entries(coordinator)]
    assert actions == [Action.RUN_CANCEL, Action.TEACHER_REGISTER, Action.FILE_UPLOAD, Action.RUN_SUBMIT]
    await coordinator.register_teacher("walker", "http://127.0.0.1:10", teacher_info())
    assert (await entries(coordinator))[0].action is Action.TEACHER_REGISTER, "another address is news"


async def test_an_entry_names_key_lease_and_trace(
    guarded_app: FastAPI, admin: CoordinatorClient, spec: Callable[..., Any]
) -> None:
    new = await admin.create_key(KeyRequest(name="ci", scopes=frozenset({Scope.RUNS_WRITE})))
    async with as_key(guarded_app, new.secret) as ci:
        run_id = (await ci.post("/v1/runs", json=spec(), headers={"traceparent": traceparent("t")})).json()["id"]
    async with WorkerClient(URL, FILES["trainer"], httpx2.ASGITransport(guarded_app)) as worker:
        lease = await worker.lease_run(run_id, "w")
        await worker.report_outcome(run_id, Outcome(epoch=lease.epoch, result="failed"))
    ended, leased, submitted, created = await entries(admin)
    assert (created.actor, created.owner, created.trace) == ("file:admin", None, None)
    assert (submitted.actor, submitted.owner, submitted.project) == (new.key.id, "ci", "default")
    assert (submitted.trace, submitted.route, submitted.target) == (run_trace("t"), "POST /v1/runs", run_id)
    assert (leased.actor, leased.route) == ("file:trainer", "POST /internal/v1/runs/{run_id}/lease")
    assert (ended.actor, ended.action, ended.target) == (f"{run_id}@1", Action.RUN_END, run_id)


async def test_a_project_reads_its_own_entries_and_one_key_those_of_all(
    guarded_app: FastAPI, admin: CoordinatorClient, spec: Callable[..., Any]
) -> None:
    run = await admin.submit(spec())
    secret = await made(admin, Scope.AUDIT_READ, Scope.FILES_WRITE)
    async with CoordinatorClient(URL, secret, httpx2.ASGITransport(guarded_app)) as tenant:
        file = await tenant.upload(b"theirs")
        assert [(each.action, each.target) for each in await entries(tenant)] == [(Action.FILE_UPLOAD, file.id)]
        assert await entries(tenant, target=run.id) == []
    assert {each.project for each in await entries(admin)} == {"default", "other"}


async def test_entries_are_found_by_actor_action_target_and_time(
    coordinator: CoordinatorClient, database: Database, spec: Callable[..., Any]
) -> None:
    first, second = [await coordinator.submit(spec()) for _ in range(2)]
    await coordinator.cancel(first.id)
    cancelled, *_ = before = await entries(coordinator)
    with database.write() as session:
        audit.enter(
            session, Caller("key-1", "default", frozenset(), owner="ci"), Action.REFUSED, "r", f"{first.id}/j", 403
        )
        session.execute(update(AuditRow).where(AuditRow.id == cancelled.id).values(created_at=1e9))
    assert [each.target for each in await entries(coordinator, action="run.submit")] == [second.id, first.id]
    about = [each.action for each in await entries(coordinator, target=first.id)]
    assert about == [Action.REFUSED, Action.RUN_CANCEL, Action.RUN_SUBMIT], "what was done to a part of it too"
    (refused,) = await entries(coordinator, actor="ci")
    assert [refused] == await entries(coordinator, actor="key-1")
    long_ago = datetime.fromtimestamp(1e9, UTC)
    assert [each.id for each in await entries(coordinator, until=long_ago + timedelta(seconds=1))] == [cancelled.id]
    assert [each.id for each in await entries(coordinator, since=long_ago + timedelta(seconds=1))] == [
        refused.id,
        *(each.id for each in before[1:]),
    ]
    assert await entries(coordinator, target="run") == []


async def test_pages_go_on_where_the_one_before_ended(coordinator: CoordinatorClient, spec: Callable[..., Any]) -> None:
    ids = [(await coordinator.submit(spec())).id for _ in range(5)]
    found: list[str | None] = []
    after = None
    while True:
        page = await coordinator.audit(limit=2, after=after)
        found += [each.target for each in page.data]
        await coordinator.upload(str(after).encode())  # what is added meanwhile neither shifts nor repeats
        after = page.next
        if after is None:
            break
    assert found == ids[::-1]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("action=run.fly", "action"),
        ("since=yesterday", "since"),
        ("since=2026-01-01T00:00:00", "since"),
        ("after=x", "after"),
    ],
)
async def test_what_cannot_be_asked_for_is_refused_by_its_field(
    http: httpx2.AsyncClient, query: str, field: str
) -> None:
    answer = await http.get(f"/v1/audit?{query}")
    assert (answer.status_code, answer.json()["field"]) == (422, field)


async def test_what_is_old_is_forgotten_and_its_numbers_are_not_given_again(
    coordinator: CoordinatorClient, database: Database, spec: Callable[..., Any]
) -> None:
    for _ in range(2):
        await coordinator.submit(spec())
    before = await entries(coordinator)
    with database.write() as session:
        session.execute(update(AuditRow).values(created_at=now() - 2 * DAY_S))
    assert (await coordinator.forget_rollouts(1, audit_days=3)).entries == 0
    with database.write() as session:
        assert [audit.forget(session, DAY_S, at_once=1) for _ in range(2)] == [1, 1]
        assert audit.forget(session, DAY_S, at_once=1) == 0
    await coordinator.submit(spec())
    (after,) = await entries(coordinator)
    assert after.id > before[0].id


async def test_only_a_key_for_all_projects_deletes_of_the_audit(
    guarded_app: FastAPI, admin: CoordinatorClient, database: Database
) -> None:
    secret = await made(admin, *set(Scope) - {Scope.PROJECTS_ADMIN})
    with database.write() as session:
        session.execute(update(AuditRow).values(created_at=now() - 2 * DAY_S))
    async with CoordinatorClient(URL, secret, httpx2.ASGITransport(guarded_app)) as tenant:
        with pytest.raises(ProblemResponse, match="lacks the scope projects:admin"):
            await tenant.forget_rollouts(1, audit_days=1)
    assert (await admin.forget_rollouts(1, audit_days=1)).entries == 1
    kept = [(entry.action, entry.owner) for entry in (await admin.audit()).data]
    assert kept == [(Action.ROLLOUTS_FORGET, None), (Action.REFUSED, "k")], "that it was done, and who was refused it"


async def test_the_page_shows_who_did_what_and_less_where_less_is_asked_for(
    http: httpx2.AsyncClient, coordinator: CoordinatorClient, spec: Callable[..., Any]
) -> None:
    assert "Nobody has done anything." in (await shown(http, "/audit")).text
    run = await coordinator.submit(spec())
    await coordinator.cancel(run.id)
    page = await shown(http, "/audit")
    assert "run.submit" in page.text
    assert f"/runs/{run.id}" in [link["href"] for link in page.all("a")]
    less = await shown(http, f"/audit?actor=&action=run.cancel&target={run.id}")
    assert "POST /v1/runs/{run_id}/cancel" in less.text
    assert "POST /v1/runs " not in less.text
    assert "Nobody has done anything of this kind." in (await shown(http, "/audit?actor=x&action=&target=")).text
    assert "is not a cursor of this list" in (await http.get("/audit?after=x")).text
