"""The demo: start the stack, submit every arm over HTTP as anybody would, follow it, and show what came of it."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from tutelage.standalone.report import write_report
from tutelage.standalone.stack import StackOptions, running
from tutelage.standalone.stages import Stage, specs
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.errors import TutelageError
from tutelage_client.spec import RunSpec
from tutelage_client.wire import RunStatus


@dataclass(frozen=True)
class Arm:
    """What one arm came to. before, after: accuracy on held-out prompts; by_tag: the same for each of their tags."""

    name: str
    before: float
    after: float
    seed: int
    student_tokens: int
    teacher_tokens: int
    seconds: float
    by_tag: dict[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class ArmRun:
    """An arm with the run behind it."""

    arm: Arm
    run_id: str
    spec: RunSpec
    metrics: list[dict[str, Any]]


@dataclass(frozen=True)
class StageRuns:
    stage: Stage
    runs: list[ArmRun]


async def demo(out: Path, assets: Path, stages: Sequence[Stage], *, short: bool) -> None:
    """Run the stages and write `report.html` and `result.json` into `out`.

    Raises:
        InvalidInput: the assets are not there.
        TutelageError: an arm did not succeed.
    """
    planned = [(stage, [shortened(spec, short) for spec in specs(stage, assets)]) for stage in stages]
    teachers = {stage.teacher: assets / stage.name / "teacher" for stage in stages}
    console = Console()
    data = out / "data"
    shutil.rmtree(data, ignore_errors=True)
    done: list[StageRuns] = []
    async with running(StackOptions(data_dir=data, port=0, teachers=teachers)) as stack:
        console.print(f"[bold]Tutelage[/bold] is up at {stack.url}")
        async with CoordinatorClient(stack.url) as client:
            for stage, chosen in planned:
                console.print(f"\n[bold]{stage.title}[/bold]. {stage.task}")
                done.append(StageRuns(stage, await run_arms(client, stack.url, chosen, console)))
                console.print(table(done[-1]))
    write_result(out / "result.json", done)
    write_report(out / "report.html", done)
    console.print(f"\nreport: {out / 'report.html'}   figures: {out / 'result.json'}", soft_wrap=True)
    console.print(f"look again: tutelage up --data-dir {data}, then tutelage runs ls", soft_wrap=True)


def shortened(spec: RunSpec, short: bool) -> RunSpec:
    """A tenth of the steps, for showing that everything runs."""
    if not short:
        return spec
    steps = max(2, spec.optim.steps // 10)
    return spec.model_copy(update={"optim": spec.optim.model_copy(update={"steps": steps})})


async def run_arms(client: CoordinatorClient, url: str, chosen: Sequence[RunSpec], console: Console) -> list[ArmRun]:
    """Submit every arm and follow it to its end, one after another so that their seconds can be compared."""
    columns = (TextColumn("{task.description:<8}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[shown]}"), console=console) as progress:
        return [await run_arm(client, url, spec, progress) for spec in chosen]


async def run_arm(client: CoordinatorClient, url: str, spec: RunSpec, progress: Progress) -> ArmRun:
    task = progress.add_task(spec.name, total=spec.optim.steps, shown="")
    begun_s = time.monotonic()
    run = await client.submit(spec)
    progress.console.print(f"{spec.name:<8} {url}/v1/runs/{run.id}", soft_wrap=True)
    while not run.status.final:
        await asyncio.sleep(0.5)
        run = await client.run(run.id)
        progress.update(task, completed=run.step, shown=shown(run.status, run.metrics))
    if run.status != RunStatus.SUCCEEDED:
        raise TutelageError(f"arm {spec.name} {run.status}: {run.error.message if run.error else run.status_reason}")
    rows = await client.metrics(run.id)
    before, after = first_and_last(rows, "accuracy")
    arm = Arm(
        name=spec.name,
        before=before,
        after=after,
        seed=spec.seed,
        student_tokens=run.student_tokens,
        teacher_tokens=run.teacher_tokens,
        seconds=round(time.monotonic() - begun_s, 1),
        by_tag={tag: first_and_last(rows, f"accuracy/{tag}") for tag in tags(rows)},
    )
    return ArmRun(arm, run.id, spec, rows)


def first_and_last(rows: Sequence[dict[str, Any]], name: str) -> tuple[float, float]:
    """A metric at its first and last measurement."""
    values = [row[name] for row in rows if row.get(name) is not None]
    return values[0], values[-1]


def tags(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The tags by which accuracy was measured, in the order of the metric's rows."""
    return [name.removeprefix("accuracy/") for name in rows[0] if name.startswith("accuracy/")]


def shown(status: RunStatus, metrics: dict[str, float]) -> str:
    """The newest figures, on one line."""
    parts = [
        f"{name} {metrics[key]:.3f}" for name, key in (("KL", "reverse_kl"), ("acc", "accuracy")) if key in metrics
    ]
    return "  ".join(parts) or status.value


def write_result(path: Path, done: Sequence[StageRuns]) -> None:
    stages = [{"name": d.stage.name, "metric": "accuracy", "arms": [asdict(r.arm) for r in d.runs]} for d in done]
    path.write_text(json.dumps({"stages": stages}, indent=1) + "\n")


def table(done: StageRuns) -> Table:
    """Before, after, and what it cost."""
    rows = Table(title=f"{done.stage.name}: share of right answers on held-out prompts")
    for column in ("arm", "before", "after", "change", "student tokens", "teacher tokens", "seconds"):
        rows.add_column(column, justify="left" if column == "arm" else "right")
    for arm in (run.arm for run in done.runs):
        rows.add_row(
            arm.name,
            f"{arm.before:.1%}",
            f"{arm.after:.1%}",
            f"{100 * (arm.after - arm.before):+.1f}",
            f"{arm.student_tokens:,}",
            f"{arm.teacher_tokens:,}",
            f"{arm.seconds:.0f}",
        )
    return rows
