"""The dashboard's pages about more than one run: comparison, queue, and lists that are longer than a page."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from html import unescape
from typing import Any

import httpx2
import pytest
from dashboard_pages import HOSTILE, series, shown
from fastapi import FastAPI
from sqlalchemy import update

from tutelage.coordinator.app import build_app
from tutelage.coordinator.db import Database
from tutelage.coordinator.settings import Settings
from tutelage.coordinator.tables import RunRow
from tutelage.queue import Job, MemoryQueue
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.wire import ForkPoint, Lease, Rollout, RunView, StepReport, TeacherInfo
from tutelage_client.worker import WorkerClient

Spec = Callable[..., dict[str, Any]]


async def learned(worker: WorkerClient, run: RunView, values: dict[int, float]) -> None:
    lease = await worker.lease_run(run.id, "w1")
    for step, value in values.items():
        row = StepReport(
            epoch=lease.epoch, step=step, metrics={"reverse_kl": value}, student_tokens=step, teacher_tokens=0
        )
        await worker.report_step(run.id, row)


async def test_two_runs_are_compared_by_what_differs(
    http: httpx2.AsyncClient, coordinator: CoordinatorClient, worker: WorkerClient, pushed_spec: dict[str, Any]
) -> None:
    one = await coordinator.submit(pushed_spec | {"optim": {"lr": 0.001}})
    other = await coordinator.submit(pushed_spec | {"student": {"model": "/<i>m</i>"}, "optim": {"lr": 0.002}})
    await learned(worker, one, {1: 2.0, 2: 1.5})
    await learned(worker, other, {2: 3.0, 4: 0.5})
    chosen = await shown(http, f"/runs/{one.id}/compare")
    link = f"/runs/{one.id}/compare/{other.id}"
    assert [each["href"] for each in chosen.all("a") if "/compare/" in str(each["href"])] == [link]
    page = await shown(http, link)
    codes = [each for each in page.data if each in ("optim.lr", "optim.steps", "0.001", "0.002")]
    assert codes == ["optim.lr", "0.001", "0.002"]
    assert not page.all("i")
    assert '"/<i>m</i>"' in page.data, "a spec is shown as it was written"
    drawn = series(page)
    assert drawn["steps"] == [1, 2, 4]
    assert drawn["columns"]["a/reverse_kl"] == [2.0, 1.5, None]
    assert drawn["columns"]["b/reverse_kl"] == [None, 3.0, 0.5]
    assert "1.5 at step 2, from 2 at step 1" in page.text, "in words for who cannot see it"
    assert "0.5 at step 4, from 3 at step 2" in page.text


async def test_a_fork_has_its_parents_line_up_to_where_it_began(
    http: httpx2.AsyncClient,
    coordinator: CoordinatorClient,
    worker: WorkerClient,
    database: Database,
    pushed_spec: dict[str, Any],
) -> None:
    parent, child = await coordinator.submit(pushed_spec), await coordinator.submit(pushed_spec)
    with database.write() as session:
        began = ForkPoint(run_id=parent.id, step=2, changed=[]).model_dump(mode="json")
        session.execute(update(RunRow).where(RunRow.id == child.id).values(forked_from=began))
    await learned(worker, parent, {1: 2.0, 2: 1.5, 3: 1.25})
    await learned(worker, child, {3: 1.0})
    for first, second, child_side in ((parent, child, "b"), (child, parent, "a")):
        page = await shown(http, f"/runs/{first.id}/compare/{second.id}")
        drawn = series(page)
        assert drawn["columns"][f"{child_side}/reverse_kl"] == [2.0, 1.5, 1.0]
        assert [(mark["step"], mark["kind"]) for mark in drawn["marks"]] == [(2, "start")]
        assert "at step 2, where the charts have a mark: up to there both lines are one" in page.text


async def test_runs_of_one_spec_differ_nowhere(
    http: httpx2.AsyncClient, coordinator: CoordinatorClient, spec: Spec
) -> None:
    one, other = await coordinator.submit(spec()), await coordinator.submit(spec())
    page = await shown(http, f"/runs/{one.id}/compare/{other.id}")
    assert "Nowhere: every setting is the same" in page.text
    assert all("hidden" in place for place in page.all("div") if "data-chart" in place)


async def test_a_run_alone_has_nothing_to_be_compared_with(
    http: httpx2.AsyncClient, coordinator: CoordinatorClient, spec: Spec
) -> None:
    run = await coordinator.submit(spec())
    assert "There is no other run" in (await shown(http, f"/runs/{run.id}/compare")).text
    assert "is not a cursor of this list" in (await shown(http, f"/runs/{run.id}/compare?after=x~y~z", 422)).text
    for path in (f"/runs/{run.id}/compare/none", f"/runs/none/compare/{run.id}", "/runs/none/compare"):
        assert "there is no run 'none'" in (await shown(http, path, 404)).text


async def test_a_list_of_more_than_a_page_is_turned_and_turned_back(
    http: httpx2.AsyncClient,
    coordinator: CoordinatorClient,
    worker: WorkerClient,
    lease: Lease,
    rollout: Callable[[str], Rollout],
    teacher_info: Callable[..., TeacherInfo],
) -> None:
    for n in range(51):
        await coordinator.submit(lease.spec)
        await coordinator.register_teacher(f"t{n}", "http://127.0.0.1:9", teacher_info(f"t{n}"))
    many = [rollout(f"r{n}") for n in range(51)]
    row = StepReport(epoch=1, step=1, metrics={}, student_tokens=0, teacher_tokens=0, rollouts=many)
    await worker.report_step(lease.run_id, row)
    own, in_time = f"/runs/{lease.run_id}", ("Newest", "Older")
    lists = {"/": in_time, f"{own}/rollouts": in_time, f"{own}/compare": in_time, "/teachers": ("First", "Next")}
    for path, (back, on) in lists.items():
        first = await http.get(path)
        assert f">{back}</a>" not in first.text
        (link,) = re.findall(rf'<a href="({path}\?after=[^"]+)">{on}</a>', first.text)
        last = await http.get(unescape(link))
        assert f'<a href="{path}">{back}</a>' in last.text
        assert f">{on}</a>" not in last.text


async def test_without_a_queue_the_page_says_how_to_give_one(http: httpx2.AsyncClient) -> None:
    assert "start it with one" in (await shown(http, "/queue")).text


@pytest.fixture
def queue() -> MemoryQueue:
    return MemoryQueue()


@pytest.fixture
async def queued(
    settings: Settings, database: Database, queue: MemoryQueue, app: FastAPI
) -> AsyncIterator[httpx2.AsyncClient]:
    """A coordinator that knows the queue."""
    knowing = build_app(settings, database, queue)
    knowing.state.stopping = app.state.stopping
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(knowing), base_url="http://127.0.0.1") as client:
        yield client


async def test_the_queue_shows_what_waits_and_what_was_given_up(
    queued: httpx2.AsyncClient,
    coordinator: CoordinatorClient,
    queue: MemoryQueue,
    taught: Spec,
    teacher_info: Callable[..., TeacherInfo],
) -> None:
    assert "No teacher has registered" in (await shown(queued, "/queue")).text
    await coordinator.register_teacher("walker", "http://127.0.0.1:9", teacher_info())
    assert "None: every question was answered" in (await shown(queued, "/queue")).text
    run = await coordinator.submit(taught())
    jobs = [Job(name, "walker", run.id, run.id, 1200, b"payload") for name in ("dies", "waits")]
    await queue.put(jobs)
    for _ in range(3):
        [delivery] = [d for d in await queue.lease("walker", "w1", count=2, wait_s=0) if d.job.id == "dies"]
        await queue.fail(delivery, HOSTILE)
    page = await shown(queued, "/queue")
    row = page.text[page.text.index("Dead letters walker") :]
    assert row.startswith("Dead letters walker 0 1 0 s 1 200 7 2 1 ")
    buttons = [(each["data-verb"], each["data-run"], each["data-job"]) for each in page.all("button")]
    assert buttons == [("replay", run.id, "dies"), ("discard", run.id, "dies")]
    assert page.text.count("<script>alert(1)</script>") == 4, "the reason, and that of each delivery"
    assert (await queued.post(f"/v1/runs/{run.id}/dead-letters/dies/replay")).status_code == 200
    assert "None: every question was answered" in (await shown(queued, "/queue")).text
