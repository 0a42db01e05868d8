"""Following a run by the command line, while a worker that the test plays drives the run."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.wire import EventReport, Heartbeat, Outcome, RunError, RunStatus, RunView, StepReport
from tutelage_client.worker import WorkerClient

TIMEOUT_S = 60
Cli = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]
UNTUNED = RunError(code="untuned", message="data.train: line 3 has no prompt", category="user", step=2)


@pytest.fixture
def start(command: list[str], environment: dict[str, str]) -> Iterator[Start]:
    """Start `tutelage ARGS` and leave it running."""
    started: list[subprocess.Popen[str]] = []

    def start(*args: str, stdout: int = subprocess.PIPE, **env: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*command, *args], env=environment | env, stdout=stdout, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


async def submitted(url: str, steps: int = 40) -> RunView:
    spec = {
        "name": "walk",
        "student": {"model": "/models/student"},
        "data": {"train": "/data/prompts.jsonl"},
        "objective": {"kind": "constant_penalty"},
        "optim": {"steps": steps},
    }
    async with CoordinatorClient(url) as client:
        return await client.submit(spec)


async def drive(url: str, run_id: str, steps: int, **end: Any) -> None:
    """Lease the run, report `steps` steps, and with `end` the outcome."""
    async with WorkerClient(url) as worker:
        lease = await worker.lease_run(run_id, "tester")
        await worker.heartbeat(run_id, Heartbeat(epoch=lease.epoch, status="running"))
        for step in range(steps + 1):
            metrics: dict[str, float | None] = (
                {"reverse_kl": 2.0 / (step + 1), "tokens": 1000.0, "seconds": 0.5} if step else {}
            )
            metrics |= {"accuracy": 0.25 + step / 100} if step % 10 == 0 else {}
            report = StepReport(
                epoch=lease.epoch, step=step, metrics=metrics, student_tokens=1000 * step, teacher_tokens=0
            )
            await worker.report_step(run_id, report)
        warned = EventReport(epoch=lease.epoch, type="teacher", level="warning", message="slow \x1b[31mteacher")
        await worker.report_event(run_id, warned)
        if end:
            model_path = f"{lease.artefacts}/model" if end["result"] == "succeeded" else None
            await worker.report_outcome(run_id, Outcome(epoch=lease.epoch, model_path=model_path, **end))


async def finished(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = await asyncio.to_thread(process.communicate, timeout=TIMEOUT_S)
    return process.returncode, out or "", err


async def test_plain_lines_tell_of_states_steps_and_warnings_without_control_codes(
    start: Start, coordinator_url: str, spec: Path
) -> None:
    process = start("runs", "submit", str(spec), "--watch")
    assert process.stdout is not None
    first = await asyncio.to_thread(process.stdout.readline)
    run_id = first.split()[0]
    assert first.split()[1] == f"{coordinator_url}/v1/runs/{run_id}"
    await drive(coordinator_url, run_id, 40, result="succeeded")
    code, out, err = await finished(process)
    lines = [line.split("  ", 1)[1] for line in out.splitlines() if re.match(r"\d\d:\d\d:\d\d  ", line)]
    states = [line for line in lines if not line.startswith(("step", "warning"))]
    steps = [line.split()[1] for line in lines if line.startswith("step")]
    assert (code, err) == (0, "")
    assert states == ["queued (waiting for a trainer)", "starting", "running", "finalizing", "succeeded"]
    assert steps == [f"{step}/40" for step in range(0, 41, 2)]
    assert "step 40/40  KL 0.0488  accuracy 0.6500  2,000 tok/s" in lines
    evaluated = [line.split()[1] for line in lines if "accuracy" in line and line.startswith("step")]
    assert evaluated == [f"{step}/40" for step in range(0, 41, 10)]
    assert any(line.startswith("warning: slow ") for line in lines)
    assert "succeeded in" in out
    assert "accuracy 0.2500 -> 0.6500" in out
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", out)


@pytest.mark.parametrize(
    ("end", "code", "said"),
    [
        ({"result": "succeeded"}, 0, ""),
        ({"result": "failed", "error": UNTUNED}, 2, "data.train: line 3 has no prompt"),
        ({"result": "failed", "error": UNTUNED.model_copy(update={"category": "teacher"})}, 1, "(teacher)"),
        ({"result": "cancelled"}, 1, "was cancelled at step 2 of 40"),
    ],
    ids=["succeeded", "failed-user", "failed-teacher", "cancelled"],
)
async def test_the_exit_code_says_how_the_run_ended(
    cli: Cli, coordinator_url: str, end: dict[str, Any], code: int, said: str
) -> None:
    run = await submitted(coordinator_url)
    if end["result"] == "cancelled":
        async with CoordinatorClient(coordinator_url) as client:
            await drive(coordinator_url, run.id, 2)
            await client.cancel(run.id)
        async with WorkerClient(coordinator_url) as worker:
            await worker.report_outcome(run.id, Outcome(epoch=1, **end))
    else:
        await drive(coordinator_url, run.id, 2, **end)
    done = cli("runs", "watch", run.id)
    assert done.returncode == code
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == (1 if code else 0)
    assert all(line.startswith("tutelage: ") for line in done.stderr.splitlines())


async def test_with_json_every_line_is_an_object_from_the_run_to_its_end(cli: Cli, coordinator_url: str) -> None:
    run = await submitted(coordinator_url)
    await drive(coordinator_url, run.id, 3, result="succeeded")
    done = cli("runs", "watch", run.id, "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, done.stderr) == (0, "")
    assert lines[0]["run"]["id"] == lines[-1]["run"]["id"] == run.id
    assert lines[-1]["run"]["status"] == "succeeded"
    events = [line["event"] for line in lines[1:-1]]
    assert [event["id"] for event in events] == list(range(1, len(events) + 1))
    assert [event["data"]["step"] for event in events if event["type"] == "metrics"] == [0, 1, 2, 3]


async def test_ctrl_c_leaves_the_run_running_and_says_how_to_go_on(start: Start, coordinator_url: str) -> None:
    run = await submitted(coordinator_url)
    await drive(coordinator_url, run.id, 2)
    process = start("runs", "watch", run.id)
    assert process.stdout is not None
    while "step 2/40" not in (line := await asyncio.to_thread(process.stdout.readline)):
        assert line, "it ended by itself"
    process.send_signal(signal.SIGINT)
    code, _, err = await finished(process)
    assert code == 130
    assert f"`tutelage runs watch {run.id}`" in err
    assert f"`tutelage runs cancel {run.id}`" in err
    assert "Traceback" not in err
    async with CoordinatorClient(coordinator_url) as client:
        assert (await client.run(run.id)).status is RunStatus.RUNNING


async def test_a_terminal_gets_a_bar_and_the_warnings(start: Start, coordinator_url: str) -> None:
    run = await submitted(coordinator_url, steps=4)
    await drive(coordinator_url, run.id, 4, result="succeeded")
    ours, theirs = pty.openpty()
    process = start("runs", "watch", run.id, stdout=theirs, TERM="xterm-256color", COLUMNS="100")
    os.close(theirs)
    shown = await asyncio.to_thread(everything, ours)
    code, _, err = await finished(process)
    assert (code, err) == (0, "")
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    assert "━" in text
    assert "4/4" in text
    assert "KL 0.4000" in text
    assert "warning: slow  [31mteacher" in text  # the teacher's own control code has not reached the terminal
    assert f"{run.id} succeeded" in text


def everything(descriptor: int) -> str:
    """What is written to a terminal until its last writer has gone."""
    parts: list[bytes] = []
    with os.fdopen(descriptor, "rb", buffering=0) as terminal:
        while True:
            try:
                part = terminal.read(4096)
            except OSError:  # Linux says so where others return nothing
                break
            if not part:
                break
            parts.append(part)
    return b"".join(parts).decode()
