"""Runs that are interrupted: cancelled, paused, killed, moved to another start of the stack, on another database."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from embedded_stack import Up, finished, kill, small_spec, until
from exposed import Exposed, fallen, scraped_until_ended
from postgres import execute
from sqlalchemy import make_url

from tutelage_client.wire import RunStatus

LONG: dict[str, Any] = {"optim": {"steps": 40}, "checkpoint": {"every": 2}, "eval": {"every": 20}}


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Up]:
    """A stack that the test may break."""
    stack = Up(tmp_path / "stack")
    yield stack
    stack.stop()


async def started(up: Up, spec: dict[str, Any], step: int) -> str:
    """Submit, and wait until the run has done `step` steps."""
    async with up.client() as client:
        run_id = (await client.submit(spec)).id
    await until(up, run_id, lambda run: run.step >= step)
    return run_id


async def committed_steps(up: Up, run_id: str) -> list[int]:
    async with up.client() as client:
        return [row["step"] for row in await client.metrics(run_id)]


async def test_a_cancelled_run_stops_and_says_so(own: Up, data: Path) -> None:
    run_id = await started(own, small_spec(data, "cancelled", **LONG | {"optim": {"steps": 5000}}), step=1)
    async with own.client() as client:
        await client.cancel(run_id)
        assert (await finished(own, run_id)).status is RunStatus.CANCELLED
        assert [event.message async for event in client.events(run_id)]
        next_run = await client.submit(small_spec(data, "after"))
    assert (await finished(own, next_run.id)).status is RunStatus.SUCCEEDED


async def test_a_paused_run_keeps_its_steps_and_goes_on_when_resumed(own: Up, data: Path) -> None:
    # A trainer hears of the pause at its next heartbeat: the run must not end before that.
    spec = small_spec(data, "paused", **LONG | {"optim": {"steps": 400}, "checkpoint": {"every": 50}})
    run_id = await started(own, spec, step=3)
    async with own.client() as client:
        await client.pause(run_id)
        paused = await until(own, run_id, lambda run: run.status is RunStatus.PAUSED)
        assert 3 <= paused.step < 400
        await client.resume(run_id)
    assert (await finished(own, run_id)).status is RunStatus.SUCCEEDED
    assert await committed_steps(own, run_id) == list(range(401))


async def test_a_trainer_killed_in_the_middle_resumes_from_its_checkpoint(own: Up, data: Path) -> None:
    run_id = await started(own, small_spec(data, "killed", **LONG), step=5)
    scraping = asyncio.create_task(scraped_until_ended(own.url, run_id))
    child = own.executing()
    assert child is not None
    kill(child.pid)
    run = await finished(own, run_id)
    assert run.status is RunStatus.SUCCEEDED
    assert run.epoch == 2
    assert await committed_steps(own, run_id) == list(range(41))
    async with own.client() as client:
        checkpoints = await client.checkpoints(run_id)
        messages = [event.message for event in (await client.event_page(run_id)).data]
    assert {c.epoch for c in checkpoints} == {1, 2}
    assert any(message.startswith("resumed at step") for message in messages)
    scrapes = await scraping
    assert fallen(scrapes) == set()
    check_told(scrapes[-1], run_id)
    assert any(each.value("tutelage_redis_memory_bytes") for each in scrapes)


def check_told(told: Exposed, run_id: str) -> None:
    """What the last scrape before the end says of a run that crashed once."""
    run = {"run_id": run_id}
    assert told.value("tutelage_run_crashes_total", **run) == 1
    assert min(told.about("tutelage_run_phase_seconds_total").values()) > 0
    assert (told.value("tutelage_run_rollouts_total", **run, outcome="trained") or 0) > 0
    for name in ("run_teacher_tokens_total", "run_heartbeat_timestamp_seconds"):
        assert (told.value(f"tutelage_{name}", **run) or 0) > 0, name
    kl = {stat: told.value("tutelage_train_reverse_kl_nats", **run, stat=stat) for stat in ("mean", "p90", "max")}
    assert None not in kl.values()
    assert 0 < (kl["mean"] or 0) <= (kl["max"] or 0)
    assert told.value("tutelage_run_condition", **run, condition="teacher_available") == 1
    assert told.value("tutelage_teacher_available", teacher="adder") == 1


async def test_teacher_queue_and_coordinator_come_back_and_the_run_succeeds(own: Up, data: Path) -> None:
    run_id = await started(own, small_spec(data, "storm", **LONG), step=2)
    described = own.described
    for pid in (described["teachers"][0]["pid"], described["redis"]["pid"], described["coordinator"]["pid"]):
        before = (await _step(own, run_id)) or 0
        kill(pid)
        await until_replaced(own, pid)
        await until(own, run_id, lambda run, before=before: run.status.final or run.step > before)
    run = await finished(own, run_id)
    assert run.status is RunStatus.SUCCEEDED, f"{run.error}\n{own.logs()}"
    assert await committed_steps(own, run_id) == list(range(41))
    assert own.described["coordinator"]["url"] == described["coordinator"]["url"]


async def _step(up: Up, run_id: str) -> int:
    async with up.client() as client:
        return (await client.run(run_id)).step


async def until_replaced(up: Up, pid: int) -> None:
    """Wait until the supervisor wrote a stack without the killed process."""
    async with asyncio.timeout(60):
        while str(pid) in (up.data_dir / "stack.json").read_text():
            await asyncio.sleep(0.1)


async def test_a_second_up_on_the_same_data_goes_on_where_the_first_stopped(data: Path, tmp_path: Path) -> None:
    first = Up(tmp_path / "stack")
    await lists_its_teacher(first)
    run_id = await started(first, small_spec(data, "moved", **LONG), step=3)
    children = [psutil.Process(pid) for pid in _pids(first)]
    printed = first.stop()
    assert first.process.returncode == 0, printed
    assert not any(child.is_running() for child in children)
    second = Up(tmp_path / "stack")
    try:
        await lists_its_teacher(second)
        run = await finished(second, run_id)
        assert run.status is RunStatus.SUCCEEDED, f"{run.error}\n{second.logs()}"
        assert await committed_steps(second, run_id) == list(range(41))
        async with second.client() as client:
            messages = [event.message for event in (await client.event_page(run_id)).data]
        assert any(message.startswith("resumed at step") for message in messages)
    finally:
        second.stop()


async def lists_its_teacher(up: Up) -> None:
    """A stack that calls itself ready takes a run at once: its teacher is listed where it is now, not where it was."""
    async with up.client() as client:
        listed = [(told.name, told.url) for told in await client.teachers() if told.available]
    assert listed == [(told["name"], told["url"]) for told in up.described["teachers"]]


def _pids(up: Up) -> list[int]:
    described = up.described
    others = [*described["teachers"], *described["trainers"]]
    return [described["coordinator"]["pid"], described["redis"]["pid"], *(other["pid"] for other in others)]


def test_one_data_directory_takes_one_stack(own: Up) -> None:
    argv = [sys.executable, "-m", "tutelage.standalone", "up", "--data-dir", str(own.data_dir), "--port", "0"]
    second = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert second.returncode == 2
    assert "is running on this data directory already" in second.stderr


async def test_a_run_on_postgresql(postgres: str, data: Path, tmp_path: Path) -> None:
    execute(postgres, "CREATE DATABASE stack")
    url = make_url(postgres).set(database="stack").render_as_string(hide_password=False)
    stack = Up(tmp_path / "stack", "--database-url", url)
    try:
        async with stack.client() as client:
            run_id = (await client.submit(small_spec(data, "postgres"))).id
        assert (await finished(stack, run_id)).status is RunStatus.SUCCEEDED
        assert not list((tmp_path / "stack").rglob("*.db"))
    finally:
        stack.stop()
