"""The coordinator's clients against a real coordinator process: killed, stopped and started again beneath them."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tutelage.coordinator.routes.workers import POLL_S
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.errors import InvalidInput, StaleEpoch
from tutelage_client.wire import CheckpointCommit, EventReport, EventView, Heartbeat, Outcome
from tutelage_client.worker import WorkerClient

SPEC: dict[str, Any] = {
    "name": "walk",
    "student": {"model": "/models/student"},
    "data": {"train": "/data/prompts.jsonl"},
    "objective": {"kind": "constant_penalty"},
}


class Coordinator:
    """A coordinator process that keeps its port and its data over restarts."""

    def __init__(self, data_dir: Path, *flags: str) -> None:
        self._command = [sys.executable, "-m", "tutelage.coordinator", "--data-dir", str(data_dir), *flags]
        self._log = data_dir.with_suffix(".log")
        self.url = self._start(port=0)

    def _start(self, port: int) -> str:
        with self._log.open("ab") as log:
            command = [*self._command, "--port", str(port)]
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self._process.stdout is not None
        said = re.match(r"listening on (http://\S+)", self._process.stdout.readline())
        assert said, self._log.read_text()
        return said[1]

    def end(self, how: signal.Signals) -> int:
        self._process.send_signal(how)
        assert self._process.stdout is not None
        self._process.stdout.close()
        return self._process.wait(20)

    def restart(self, how: signal.Signals) -> int:
        """The exit code of the process that went."""
        code = self.end(how)
        self.start_again()
        return code

    def start_again(self) -> None:
        assert self._start(port=int(self.url.rpartition(":")[2])) == self.url

    def close(self) -> None:
        if self._process.poll() is None:
            self.end(signal.SIGKILL)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Coordinator]]:
    started: list[Coordinator] = []

    def start(*flags: str) -> Coordinator:
        started.append(Coordinator(tmp_path / "data", *flags))
        return started[-1]

    yield start
    for each in started:
        each.close()


async def test_events_come_once_each_in_order_over_restarts_and_end_with_the_run(start: Callable[..., Coordinator]):
    process = start()
    async with CoordinatorClient(process.url) as coordinator, WorkerClient(process.url) as worker:
        run = await coordinator.submit(SPEC)
        lease = await worker.lease_run(run.id, "w")
        seen: list[EventView] = []
        began = asyncio.Event()

        async def follow() -> None:
            async for event in coordinator.events(run.id):
                seen.append(event)
                began.set()

        following = asyncio.create_task(follow())
        await asyncio.wait_for(began.wait(), 20)
        for how, code in ((signal.SIGKILL, -9), (signal.SIGTERM, 0)):  # asked to stop, it stops cleanly
            assert await asyncio.to_thread(process.restart, how) == code
            for number in range(3):
                report = EventReport(epoch=lease.epoch, type="log", message=f"{how.name} {number}")
                await worker.report_event(run.id, report)
        await worker.report_outcome(run.id, Outcome(epoch=lease.epoch, result="succeeded"))
        await asyncio.wait_for(following, 30)
        assert [event.id for event in seen] == list(range(1, len(seen) + 1))
        said = [f"{how} {number}" for how in ("SIGKILL", "SIGTERM") for number in range(3)]
        assert [event.message for event in seen if event.type == "log"] == said
        assert seen[-1].data["to"] == "succeeded"
        assert [e async for e in coordinator.events(run.id, after=len(seen) - 2)] == seen[-2:]


async def test_a_lease_survives_a_killed_coordinator_and_writes_wait_for_its_return(start: Callable[..., Coordinator]):
    process = start()
    async with CoordinatorClient(process.url) as coordinator, WorkerClient(process.url) as worker:
        run = await coordinator.submit(SPEC)
        lease = await worker.lease("w", wait_s=5)
        assert lease is not None
        await worker.commit_checkpoint(
            run.id, CheckpointCommit(epoch=1, step=3, path="step-3", weights_sha256="0" * 64)
        )
        process.end(signal.SIGKILL)
        beating = asyncio.create_task(worker.heartbeat(run.id, Heartbeat(epoch=1, status="running")))
        await asyncio.to_thread(process.start_again)
        assert (await beating).desired == "run"
        assert (await coordinator.run(run.id)).status == "running"
        assert [c.step for c in await coordinator.checkpoints(run.id)] == [3]


async def test_the_process_takes_a_silent_workers_run_away_and_gives_it_to_the_next(start: Callable[..., Coordinator]):
    process = start("--lease-s", "0.5")
    async with CoordinatorClient(process.url) as coordinator, WorkerClient(process.url) as worker:
        run = await coordinator.submit(SPEC)
        silent = await worker.lease("silent")
        assert silent is not None and silent.run_id == run.id
        again = await worker.lease("next", wait_s=20)
        assert again is not None and (again.run_id, again.epoch) == (run.id, 2)
        with pytest.raises(StaleEpoch):
            await worker.heartbeat(run.id, Heartbeat(epoch=silent.epoch, status="running"))


async def test_a_waiting_worker_gets_a_run_that_is_submitted_meanwhile(start: Callable[..., Coordinator]):
    process = start()
    async with CoordinatorClient(process.url) as coordinator, WorkerClient(process.url) as worker:
        waiting = asyncio.create_task(worker.lease("w", wait_s=20))
        run = await coordinator.submit(SPEC)
        lease = await asyncio.wait_for(waiting, 20)
        assert lease is not None and lease.run_id == run.id


async def test_a_worker_that_left_while_it_waited_gets_no_run(start: Callable[..., Coordinator]):
    process = start()
    async with CoordinatorClient(process.url) as coordinator:
        async with WorkerClient(process.url) as worker:
            waiting = asyncio.create_task(worker.lease("gone", wait_s=20))
            assert not (await asyncio.wait([waiting], timeout=1))[0]
            waiting.cancel()
        run = await coordinator.submit(SPEC)
        await asyncio.sleep(4 * POLL_S)  # whoever waits for the one that left has looked by then
        assert (await coordinator.run(run.id)).status == "queued"


def test_the_process_says_what_is_wrong_with_its_flags(tmp_path: Path):
    wrong = {
        "mysql": "--database-url=mysql://h/n",
        "cannot open": "--database-url=sqlite:////none/c.db",
        "port": "--port=-1",
        "cannot use the data directory": f"--data-dir={tmp_path / 'file' / 'data'}",
    }
    (tmp_path / "file").touch()
    command = [sys.executable, "-m", "tutelage.coordinator", "--data-dir", str(tmp_path / "other")]
    started = {
        said: subprocess.Popen([*command, flag], stderr=subprocess.PIPE, text=True) for said, flag in wrong.items()
    }
    for said, process in started.items():
        _, err = process.communicate(timeout=60)
        assert process.returncode != 0
        assert said in err
        assert "Traceback" not in err


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.REGTYPE, tarfile.FIFOTYPE])
async def test_an_archive_that_reaches_outside_its_folder_is_refused(kind: bytes, tmp_path: Path):
    member = tarfile.TarInfo("../outside" if kind == tarfile.REGTYPE else "link")
    member.type, member.linkname = kind, "/etc/passwd"
    body = member.tobuf() + bytes(1024)
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, content=body))
    async with CoordinatorClient("http://coordinator.test", transport=transport) as coordinator:
        with pytest.raises(InvalidInput, match="no plain file"):
            await coordinator.download_model("run-1", tmp_path / "model")
    assert list(tmp_path.rglob("*")) == []


async def test_what_is_no_archive_is_no_model(tmp_path: Path):
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, content=b"a page that says so" * 100))
    async with CoordinatorClient("http://coordinator.test", transport=transport) as coordinator:
        with pytest.raises(InvalidInput, match="the archive of the model cannot be unpacked"):
            await coordinator.download_model("run-1", tmp_path / "model")
    assert list(tmp_path.rglob("*")) == []
