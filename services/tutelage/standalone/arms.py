"""The arms of a stage: each a run that is submitted over HTTP as anybody would, and followed to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from tutelage.standalone.stages import Stage
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.errors import TutelageError
from tutelage_client.spec import RunSpec
from tutelage_client.wire import RunStatus, RunView


@dataclass(frozen=True)
class Arm:
    """What one arm came to, in the stage's metric on held-out prompts.

    by_tag: before and after for each tag of the prompts; figures: before and after of whatever else was measured
    """

    name: str
    before: float
    after: float
    seed: int
    student_tokens: int
    teacher_tokens: int
    seconds: float
    by_tag: dict[str, tuple[float, float]] = field(default_factory=dict)
    figures: dict[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class ArmRun:
    """An arm with the run behind it; texts: what the student wrote after it on the held-out prompts."""

    arm: Arm
    run_id: str
    spec: RunSpec
    metrics: list[dict[str, Any]]
    texts: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Example:
    """A held-out prompt with what the teacher, and the student before any arm, wrote to it."""

    prompt: str
    teacher: str
    before: str


@dataclass(frozen=True)
class StageRuns:
    """yardstick: figures of the teacher's own text; examples: in the order of the runs' `texts`."""

    stage: Stage
    runs: list[ArmRun]
    yardstick: dict[str, float] = field(default_factory=dict)
    examples: list[Example] = field(default_factory=list)


@dataclass(frozen=True)
class Bench:
    """Where a stage is run. models: results are downloaded there."""

    client: CoordinatorClient
    url: str
    console: Console
    assets: Path
    models: Path

    def progress(self) -> Progress:
        columns = (TextColumn("{task.description:<8}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        return Progress(*columns, TextColumn("{task.fields[shown]}"), console=self.console)


@dataclass(frozen=True)
class Finished:
    """A run that succeeded, with a row of metrics a step."""

    spec: RunSpec
    view: RunView
    rows: list[dict[str, Any]]

    @property
    def seconds(self) -> float:
        """From the trainer that took it to its end; waiting for a free trainer is not counted."""
        assert self.view.started_at and self.view.ended_at
        return round((self.view.ended_at - self.view.started_at).total_seconds(), 1)


async def follow(bench: Bench, spec: RunSpec, progress: Progress) -> Finished:
    """Submit the run and show its progress until it has succeeded.

    Raises:
        TutelageError: it did not.
    """
    budget = spec.budget.teacher_tokens
    task = progress.add_task(spec.name, total=budget or spec.optim.steps, shown="")
    run = await bench.client.submit(spec)
    progress.console.print(f"{spec.name:<8} {bench.url}/v1/runs/{run.id}", soft_wrap=True)
    while not run.status.final:
        await asyncio.sleep(0.5)
        run = await bench.client.run(run.id)
        done = run.teacher_tokens if budget else run.step
        progress.update(task, completed=done, shown=shown(run.status, run.metrics))
    if run.status != RunStatus.SUCCEEDED:
        raise TutelageError(f"arm {spec.name} {run.status}: {run.error.message if run.error else run.status_reason}")
    progress.update(task, total=1, completed=1)  # whichever limit came first, it is done
    return Finished(spec, run, await bench.client.metrics(run.id))


def arm_of(
    finished: Finished,
    before: float,
    after: float,
    *,
    by_tag: dict[str, tuple[float, float]] | None = None,
    figures: dict[str, tuple[float, float]] | None = None,
) -> Arm:
    return Arm(
        name=finished.spec.name,
        before=before,
        after=after,
        seed=finished.spec.seed,
        student_tokens=finished.view.student_tokens,
        teacher_tokens=finished.view.teacher_tokens,
        seconds=finished.seconds,
        by_tag=by_tag or {},
        figures=figures or {},
    )


def first_and_last(rows: Sequence[dict[str, Any]], name: str) -> tuple[float, float]:
    """A metric at its first and last measurement."""
    values = [row[name] for row in rows if row.get(name) is not None]
    return values[0], values[-1]


def shown(status: RunStatus, metrics: dict[str, float]) -> str:
    """The newest figures, on one line."""
    parts = [
        f"{name} {metrics[key]:.3f}" for name, key in (("KL", "reverse_kl"), ("acc", "accuracy")) if key in metrics
    ]
    return "  ".join(parts) or status.value
