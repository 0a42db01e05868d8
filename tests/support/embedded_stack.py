"""A real embedded stack in subprocesses, as `tutelage up` starts it, and small runs on the demo's models."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.wire import RunView

SKILL = Path(__file__).parents[2] / "examples" / "skill"
START_S = 120.0
RUN_S = 240.0


class Up:
    """One `up` on a data directory. `described` is stack.json as it is now."""

    def __init__(self, data_dir: Path, *flags: str, trainers: int = 1) -> None:
        self.data_dir = data_dir
        argv = [sys.executable, "-m", "tutelage.standalone", "up", "--data-dir", str(data_dir), "--port", "0"]
        argv += ["--teacher", f"adder={SKILL / 'teacher'}", "--trainers", str(trainers), *flags]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        deadline = time.monotonic() + START_S  # polled: stack.json is how scripts learn that the stack is ready
        while not (data_dir / "stack.json").is_file():
            assert self.process.poll() is None, self.process.communicate()[0]
            assert time.monotonic() < deadline, "the stack was not ready in time"
            time.sleep(0.1)

    @property
    def described(self) -> dict[str, Any]:
        return json.loads((self.data_dir / "stack.json").read_text())

    @property
    def url(self) -> str:
        return self.described["coordinator"]["url"]

    def client(self) -> CoordinatorClient:
        return CoordinatorClient(self.url)

    def executing(self) -> psutil.Process | None:
        """The child process in which a trainer executes a run, if there is one."""
        for trainer in self.described["trainers"]:
            for child in psutil.Process(trainer["pid"]).children():
                return child
        return None

    def stop(self) -> str:
        """SIGTERM, as Ctrl-C does it; returns what it printed."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.communicate(timeout=60)[0]

    def logs(self) -> str:
        return "\n".join(f"== {p.name}\n{p.read_text()[-3000:]}" for p in sorted((self.data_dir / "logs").glob("*")))


def small_spec(problems: Path, name: str, **sections: Any) -> dict[str, Any]:
    """A run of three steps; `sections` replace or extend the defaults by table."""
    spec: dict[str, Any] = {
        "name": name,
        "seed": 1,
        "student": {"model": str(SKILL / "student")},
        "teachers": [{"name": "adder"}],
        "data": {"train": str(problems), "eval": str(problems), "grader": {"kind": "last_number"}},
        "rollout": {"source": "student", "prompts_per_step": 4, "max_new_tokens": 24},
        "objective": {"kind": "divergence"},
        "optim": {"steps": 3, "lr": 1e-4},
        "eval": {"every": 3},
    }
    for key, value in sections.items():
        if value is None:
            spec.pop(key)
        elif isinstance(value, dict) and isinstance(spec.get(key), dict) and key != "objective":
            spec[key] = spec[key] | value
        else:
            spec[key] = value
    return spec


async def until(up: Up, run_id: str, wanted: Any, timeout_s: float = RUN_S) -> RunView:
    """The run as soon as `wanted(run)` holds."""
    async with up.client() as client, asyncio.timeout(timeout_s):
        while True:
            run = await client.run(run_id)
            if wanted(run):
                return run
            assert not run.status.final, f"{run.status}: {run.error}\n{up.logs()}"
            await asyncio.sleep(0.1)


async def finished(up: Up, run_id: str) -> RunView:
    """The run once it is final."""
    return await until(up, run_id, lambda run: run.status.final)


def until_registered(up: Up, names: set[str]) -> None:
    """Wait until the coordinator knows teachers of all these names as available."""

    async def wait() -> None:
        async with up.client() as client, asyncio.timeout(START_S):
            while not names <= {teacher.name for teacher in await client.teachers() if teacher.available}:
                await asyncio.sleep(0.1)

    asyncio.run(wait())


def removed(up: Up, names: Iterable[str]) -> None:
    """Take teachers that a test has started and stopped off the list of the stack that all tests share."""

    async def remove() -> None:
        async with up.client() as client:
            for name in names:
                await client.remove_teacher(name)

    asyncio.run(remove())


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
