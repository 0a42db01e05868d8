"""A stack without trainers, whose coordinator starts one for a run, and another one when that dies."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from embedded_stack import Up, finished, small_spec, until


@pytest.fixture
def launching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Up]:
    monkeypatch.setenv("TUTELAGE_COORDINATOR_LAUNCHER", "subprocess")
    monkeypatch.setenv("TUTELAGE_COORDINATOR_LAUNCH_AFTER_S", "0.1")
    stack = Up(tmp_path / "stack", trainers=0)
    yield stack
    stack.stop()


async def test_a_run_that_nobody_asks_for_succeeds_though_its_trainer_is_killed(launching: Up, data: Path):
    async with launching.client() as client:
        run = await client.submit(small_spec(data, "launched", checkpoint={"every": 1}, optim={"steps": 4}))
        running = await until(launching, run.id, lambda each: each.step >= 1)
        folder = launching.data_dir / "coordinator" / "launches" / f"{run.id}-e{running.epoch}"
        shell = psutil.Process(int((folder / "pid").read_text()))
        shell.children()[0].send_signal(signal.SIGKILL)
        ended = await finished(launching, run.id)
        assert (ended.status, ended.step) == ("succeeded", 4)
        assert ended.epoch == running.epoch + 1
        told = [event.message for event in (await client.event_page(run.id)).data]
        assert f"a trainer is launched: subprocess {run.id}-e1" in told
        assert any(message.endswith("crashed") for message in told), "at once, not when its lease is over"
        for epoch in (1, 2):
            assert '"an attempt begins"' in await client.logs(run.id, epoch=epoch)
    left = [path for path in (launching.data_dir / "coordinator" / "launches").iterdir() if path.name.startswith(".")]
    assert left == []
