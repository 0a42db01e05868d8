"""Whole runs in process: a tiny student, the real queue contract, a toy teacher, and a coordinator that listens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

from recording_worker import RecordingWorker, lease
from toy_teacher import registered

from tutelage.engines.fake import FakeEngine
from tutelage.queue import Queue
from tutelage.trainer.build import build
from tutelage.trainer.loop import train
from tutelage.trainer.run import Run
from tutelage.trainer.session import Session
from tutelage_client.spec import RunSpec
from tutelage_client.wire import CheckpointView, ForkPoint

SAMPLED = {"kind": "divergence", "divergence": "reverse_kl", "support": {"kind": "sampled"}}
DEADLINE_S = 30.0
Build = Callable[..., Awaitable[Run]]


def sections(folder: Path, steps: int) -> dict[str, Any]:
    """The parts of a spec for a short run on six prompts, which are written to `folder`."""
    data = folder / "prompts.jsonl"
    lines = [{"prompt": f"{a} {b}", "answer": a, "completion": b} for a, b in zip("abcdef", "ghijkl", strict=True)]
    data.write_text("\n".join(map(json.dumps, lines)))
    return {
        "data": {"train": str(data), "eval": str(data), "grader": {"kind": "contains"}},
        "rollout": {"prompts_per_step": 4, "samples_per_prompt": 2},
        "optim": {"steps": steps, "schedule": "cosine", "warmup_steps": 1},
        "checkpoint": {"every": 2},
        "eval": {"every": 2},
    }


def attempts(engine: FakeEngine, folder: Path) -> Build:
    """Begins attempts at runs below `folder`, with leases that a coordinator could have granted."""

    async def begin(
        spec: RunSpec,
        worker: RecordingWorker,
        queue: Queue,
        name: str = "run",
        epoch: int = 1,
        checkpoint: CheckpointView | None = None,
        forked_from: ForkPoint | None = None,
        **told: Any,
    ) -> Run:
        teachers = {"toy": registered(engine, **told).model_dump(mode="json")}
        begun = {"checkpoint": checkpoint, "forked_from": forked_from}
        held = lease({}, str(folder / name), epoch=epoch, teachers=teachers, **begun)
        session = Session(cast("Any", worker), held)
        return await build(session, spec, cast("Any", None), queue)

    return begin


async def finish(run: Run) -> None:
    """The run to its end; it fails the test instead of hanging it."""
    async with asyncio.timeout(DEADLINE_S), run.pipeline or nullcontext():
        await train(run)
