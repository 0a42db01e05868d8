"""Budgets of keys: reserved when a run is submitted, settled when it has ended, and never overspent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx2
import pytest
from bare_checkpoint import bare_checkpoint
from fastapi import FastAPI
from guarded import FILES, URL, as_key

from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.errors import ProblemResponse
from tutelage_client.wire import CheckpointCommit, KeyRequest, KeyView, Outcome, RunView, Scope, StepReport, TeacherInfo
from tutelage_client.worker import WorkerClient

Taught = Callable[..., dict[str, Any]]
SUBMITS = frozenset({Scope.RUNS_READ, Scope.RUNS_WRITE})


@pytest.fixture
async def admin(
    guarded_app: FastAPI, database: Any, teacher_info: Callable[..., TeacherInfo]
) -> AsyncIterator[CoordinatorClient]:
    guarded_app.state.stopping = asyncio.Event()
    async with CoordinatorClient(URL, FILES["admin"], httpx2.ASGITransport(guarded_app)) as client:
        await client.register_teacher("walker", "http://127.0.0.1:9", teacher_info())
        yield client


Holding = Callable[..., AbstractAsyncContextManager[tuple[CoordinatorClient, str]]]


@pytest.fixture
def holding(guarded_app: FastAPI, admin: CoordinatorClient) -> Holding:
    """A client with a new key of this budget, and the id of the key."""

    @asynccontextmanager
    async def hold(**budget: float) -> AsyncIterator[tuple[CoordinatorClient, str]]:
        new = await admin.create_key(KeyRequest.model_validate({"name": "ci", "scopes": SUBMITS} | budget))
        async with CoordinatorClient(URL, new.secret, httpx2.ASGITransport(guarded_app)) as client:
            yield client, new.key.id

    return hold


async def key_of(admin: CoordinatorClient, key_id: str) -> KeyView:
    return next(key for key in await admin.keys() if key.id == key_id)


async def refused(submission: Any) -> ProblemResponse:
    with pytest.raises(ProblemResponse) as error:
        await submission
    assert (error.value.status, error.value.code) == (402, "budget_spent")
    return error.value


async def executed(guarded_app: FastAPI, run_id: str, teacher_tokens: int, **metrics: float) -> None:
    """An attempt that learns one step for so many tokens, and succeeds."""
    async with WorkerClient(URL, FILES["trainer"], httpx2.ASGITransport(guarded_app)) as worker:
        lease = await worker.lease_run(run_id, "w")
        told = {"metrics": metrics, "student_tokens": 1, "teacher_tokens": teacher_tokens}
        await worker.report_step(run_id, StepReport.model_validate({"epoch": lease.epoch, "step": 1} | told))
        model = f"{lease.artefacts}/model"
        await worker.report_outcome(run_id, Outcome(epoch=lease.epoch, result="succeeded", model_path=model))


async def test_runs_reserve_the_most_that_they_may_spend_and_what_they_did_not_is_given_back(
    guarded_app: FastAPI, admin: CoordinatorClient, holding: Holding, taught: Taught
) -> None:
    async with holding(budget_tokens=1000) as (ci, key_id):
        first = await ci.submit(taught(budget={"teacher_tokens": 700}))
        key = await key_of(admin, key_id)
        assert (key.budget_tokens, key.spent_tokens, key.reserved_tokens) == (1000, 0, 700)
        error = await refused(ci.submit(taught(budget={"teacher_tokens": 301})))
        assert error.field == "budget.teacher_tokens"
        said = "may spend 1000 in all; its runs have spent 0 and reserved 700, and this one may take 301"
        assert f"the key {key_id} (ci) {said}" in error.detail
        assert "set a lower budget.teacher_tokens, wait until a run has ended" in error.detail
        await executed(guarded_app, first.id, 250)
        key = await key_of(admin, key_id)
        assert (key.spent_tokens, key.reserved_tokens) == (250, 0)
        second = await ci.submit(taught(budget={"teacher_tokens": 750}))
        await ci.cancel(second.id)
        assert (await key_of(admin, key_id)).reserved_tokens == 0, "it spent nothing"


async def test_a_run_without_a_budget_may_spend_all_that_is_left_and_no_more(
    guarded_app: FastAPI, holding: Holding, taught: Taught
) -> None:
    async with holding(budget_tokens=1000, budget_usd=2.0) as (ci, _):
        first = await ci.submit(taught(budget={"teacher_tokens": 400, "teacher_usd": 0.5}))
        rest = await ci.submit(taught())
        assert (rest.spec["budget"]["teacher_tokens"], rest.spec["budget"]["teacher_usd"]) == (600, 1.5)
        assert "and reserved 1000: set a lower" in (await refused(ci.submit(taught()))).detail
        await executed(guarded_app, first.id, 450, teacher_usd=0.25)
        await ci.cancel(rest.id)
        left = await ci.submit(taught())
        assert (left.spec["budget"]["teacher_tokens"], left.spec["budget"]["teacher_usd"]) == (550, 1.75)


async def test_a_spent_budget_in_dollars_refuses_and_names_its_field(
    guarded_app: FastAPI, holding: Holding, taught: Taught
) -> None:
    async with holding(budget_usd=0.3) as (ci, _):
        first = await ci.submit(taught())
        assert first.spec["budget"] == {"teacher_tokens": None, "teacher_usd": 0.3, "wall_clock_s": None}
        await executed(guarded_app, first.id, 9, teacher_usd=0.31)  # its last step was under way
        error = await refused(ci.submit(taught()))
        assert (error.field, "its runs have spent 0.31 and reserved 0" in error.detail) == ("budget.teacher_usd", True)


async def test_a_fork_is_charged_like_a_run_of_its_own(
    guarded_app: FastAPI, admin: CoordinatorClient, holding: Holding, taught: Taught
) -> None:
    async with holding(budget_tokens=1000) as (ci, key_id):
        run = await ci.submit(taught(budget={"teacher_tokens": 600}))
        async with WorkerClient(URL, FILES["trainer"], httpx2.ASGITransport(guarded_app)) as worker:
            lease = await worker.lease_run(run.id, "w")
            commit = CheckpointCommit(epoch=1, step=1, path=bare_checkpoint(lease.artefacts), weights_sha256="a" * 64)
            await worker.commit_checkpoint(run.id, commit)
        await refused(ci.fork(run.id))
        fork = await ci.fork(run.id, spec={"budget": {"teacher_tokens": 400}})
        assert fork.spec["budget"]["teacher_tokens"] == 400
        assert (await key_of(admin, key_id)).reserved_tokens == 1000


async def test_submissions_at_the_same_time_do_not_reserve_the_same_tokens(
    admin: CoordinatorClient, holding: Holding, taught: Taught
) -> None:
    async with holding(budget_tokens=1000) as (ci, key_id):
        asked = [ci.submit(taught(budget={"teacher_tokens": 300})) for _ in range(8)]
        done = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(isinstance(each, RunView) for each in done) == 3
        assert {each.code for each in done if isinstance(each, ProblemResponse)} == {"budget_spent"}
        assert (await key_of(admin, key_id)).reserved_tokens == 900


async def test_the_same_request_again_is_the_same_run_and_reserves_nothing_more(
    admin: CoordinatorClient, holding: Holding, taught: Taught
) -> None:
    async with holding(budget_tokens=1000) as (ci, key_id):
        first, again = [await ci.submit(taught(), "the-same") for _ in range(2)]
        assert first == again
        assert (await key_of(admin, key_id)).reserved_tokens == 1000


async def test_keys_and_runs_without_a_budget_are_not_held_to_one(
    guarded_app: FastAPI, admin: CoordinatorClient, holding: Holding, taught: Taught, spec: Taught
) -> None:
    async with holding(budget_tokens=1) as (ci, _), holding() as (free, key_id):
        await ci.submit(spec())  # it asks no teacher
        run = await free.submit(taught())
        assert run.spec["budget"]["teacher_tokens"] is None
        await executed(guarded_app, run.id, 5000)
        assert (await key_of(admin, key_id)).spent_tokens == 5000
        assert (await admin.submit(taught())).spec["budget"]["teacher_tokens"] is None


async def test_a_key_that_makes_keys_has_no_budget_that_these_would_go_around(guarded_app: FastAPI) -> None:
    async with as_key(guarded_app, FILES["admin"]) as admin:
        body = {"name": "k", "scopes": ["keys:admin", "runs:write"], "budget_tokens": 5}
        answer = await admin.post("/v1/keys", json=body)
    assert answer.status_code == 422
    assert "a key with keys:admin could make others without one" in answer.json()["detail"]
