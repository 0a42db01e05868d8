"""The demo: start the stack, submit every arm over HTTP as anybody would, follow it, and show what came of it."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from tutelage.standalone.report import write_report
from tutelage.standalone.stack import StackOptions, running
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.errors import InvalidInput, TutelageError
from tutelage_client.spec import RunSpec, load_spec
from tutelage_client.wire import RunStatus

ARMS = ("opd", "sft", "control")


@dataclass(frozen=True)
class Arm:
    """What one arm came to; accuracies are on the held-out problems."""

    name: str
    before: float
    after: float
    seed: int
    student_tokens: int
    teacher_tokens: int
    seconds: float


@dataclass(frozen=True)
class ArmRun:
    """An arm with the run behind it."""

    arm: Arm
    run_id: str
    spec: RunSpec
    metrics: list[dict[str, Any]]


async def demo(out: Path, assets: Path, *, short: bool) -> None:
    """Run the stage `skill` and write `report.html` and `result.json` into `out`.

    Raises:
        InvalidInput: the assets are not there.
        TutelageError: an arm did not succeed.
    """
    skill = assets / "skill"
    if not (skill / "opd.toml").is_file():
        raise InvalidInput(f"the demo needs the checkout's examples; there is no {skill}/opd.toml, give --assets")
    console = Console()
    data = out / "data"
    shutil.rmtree(data, ignore_errors=True)
    console.print("[bold]Tutelage[/bold] distils a small student that adds numbers, from a teacher that does it well.")
    async with running(StackOptions(data_dir=data, port=0, teachers={"adder": skill / "teacher"})) as stack:
        console.print(f"stack is up: coordinator {stack.url}, teacher {stack.teachers[0].url}, queue {stack.redis_url}")
        async with CoordinatorClient(stack.url) as client:
            specs = [shortened(load_spec(skill / f"{name}.toml"), short) for name in ARMS]
            runs = await run_arms(client, specs, console)
    write_result(out / "result.json", runs)
    write_report(out / "report.html", runs)
    console.print(table([run.arm for run in runs]))
    console.print(f"report: {out / 'report.html'}   figures: {out / 'result.json'}")
    console.print(f"look again: tutelage up --data-dir {data}, then GET /v1/runs/{runs[0].run_id}")


def shortened(spec: RunSpec, short: bool) -> RunSpec:
    """A tenth of the steps, for showing that everything runs."""
    if not short:
        return spec
    steps = max(2, spec.optim.steps // 10)
    return spec.model_copy(update={"optim": spec.optim.model_copy(update={"steps": steps})})


async def run_arms(client: CoordinatorClient, specs: list[RunSpec], console: Console) -> list[ArmRun]:
    """Submit every arm and follow it to its end, one after another so that their seconds can be compared."""
    columns = (TextColumn("{task.description:<8}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[shown]}"), console=console) as progress:
        return [await run_arm(client, spec, progress) for spec in specs]


async def run_arm(client: CoordinatorClient, spec: RunSpec, progress: Progress) -> ArmRun:
    task = progress.add_task(spec.name, total=spec.optim.steps, shown="")
    begun_s = time.monotonic()
    run = await client.submit(spec)
    while not run.status.final:
        await asyncio.sleep(0.5)
        run = await client.run(run.id)
        progress.update(task, completed=run.step, shown=shown(run.status, run.metrics))
    if run.status != RunStatus.SUCCEEDED:
        raise TutelageError(f"arm {spec.name} {run.status}: {run.error.message if run.error else run.status_reason}")
    rows = await client.metrics(run.id)
    accuracies = [row["accuracy"] for row in rows if row.get("accuracy") is not None]
    arm = Arm(
        name=spec.name,
        before=accuracies[0],
        after=accuracies[-1],
        seed=spec.seed,
        student_tokens=run.student_tokens,
        teacher_tokens=run.teacher_tokens,
        seconds=round(time.monotonic() - begun_s, 1),
    )
    return ArmRun(arm, run.id, spec, rows)


def shown(status: RunStatus, metrics: dict[str, float]) -> str:
    """The newest figures, on one line."""
    parts = [
        f"{name} {metrics[key]:.3f}" for name, key in (("KL", "reverse_kl"), ("acc", "accuracy")) if key in metrics
    ]
    return "  ".join(parts) or status.value


def write_result(path: Path, runs: list[ArmRun]) -> None:
    stage = {"name": "skill", "metric": "accuracy", "arms": [asdict(run.arm) for run in runs]}
    path.write_text(json.dumps({"stages": [stage]}, indent=1) + "\n")


def table(arms: list[Arm]) -> Table:
    """Before, after, and what it cost."""
    rows = Table(title="skill: share of right answers on held-out problems")
    for column in ("arm", "before", "after", "change", "student tokens", "teacher tokens", "seconds"):
        rows.add_column(column, justify="left" if column == "arm" else "right")
    for arm in arms:
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
