"""The demo: start the stack, run every stage's arms on it as anybody would, and show what came of them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from tutelage.standalone import graded, texts
from tutelage.standalone.arms import Bench, StageRuns
from tutelage.standalone.report import write_report
from tutelage.standalone.stack import StackOptions, running
from tutelage.standalone.stages import Stage, specs
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.spec import RunSpec


class Reading(NamedTuple):
    """How a stage of some metric is run, and its outcome shown on a terminal."""

    run_stage: Callable[[Bench, Stage, Sequence[RunSpec]], Awaitable[StageRuns]]
    table: Callable[[StageRuns], Table]


READINGS = {
    "accuracy": Reading(graded.run_stage, graded.table),
    "reverse_kl": Reading(texts.run_stage, texts.table),
}


async def demo(out: Path, assets: Path, stages: Sequence[Stage], *, short: bool) -> None:
    """Run the stages and write `report.html` and `result.json` into `out`.

    Raises:
        InvalidInput: the assets are not there.
        TutelageError: an arm did not succeed.
    """
    planned = [(stage, [shortened(spec, short) for spec in specs(stage, assets)]) for stage in stages]
    teachers = {stage.teacher: stage.model(assets, "teacher") for stage in stages}
    console = Console()
    data = out / "data"
    shutil.rmtree(data, ignore_errors=True)
    done: list[StageRuns] = []
    trainers, threads = processes(stages)
    options = StackOptions(data_dir=data, port=0, teachers=teachers, trainers=trainers, threads=threads)
    async with running(options) as stack:
        console.print(f"[bold]Tutelage[/bold] is up at {stack.url}")
        async with CoordinatorClient(stack.url) as client:
            bench = Bench(client, stack.url, console, assets, out / "models")
            for stage, chosen in planned:
                console.print(f"\n[bold]{stage.title}[/bold]. {stage.task}")
                reading = READINGS[stage.metric]
                done.append(await reading.run_stage(bench, stage, chosen))
                console.print(reading.table(done[-1]))
    write_result(out / "result.json", done)
    write_report(out / "report.html", done)
    console.print(f"\nreport: {out / 'report.html'}   figures: {out / 'result.json'}", soft_wrap=True)
    console.print(f"look again: tutelage up --data-dir {data}, then tutelage runs ls", soft_wrap=True)


def processes(stages: Sequence[Stage]) -> tuple[int, int]:
    """How many trainers, and with how many threads each process computes.

    Small models gain nothing from a second thread: every arm has a trainer of its own with one. Where models are large,
    student and teacher mostly take turns: one trainer, and all cores for each process.
    """
    if any(stage.models for stage in stages):
        return 1, os.cpu_count() or 1
    return max(len(stage.arms) for stage in stages), 1


def shortened(spec: RunSpec, short: bool) -> RunSpec:
    """A tenth of the steps and of the budget, for showing that everything runs."""
    if not short:
        return spec
    steps, tokens = max(2, spec.optim.steps // 10), spec.budget.teacher_tokens
    budget = spec.budget.model_copy(update={"teacher_tokens": tokens and max(1, tokens // 10)})
    return spec.model_copy(update={"optim": spec.optim.model_copy(update={"steps": steps}), "budget": budget})


def write_result(path: Path, done: Sequence[StageRuns]) -> None:
    stages = [
        {"name": d.stage.name, "metric": d.stage.metric, "arms": [asdict(run.arm) for run in d.runs]}
        | ({"yardstick": d.yardstick} if d.yardstick else {})
        for d in done
    ]
    path.write_text(json.dumps({"stages": stages}, indent=1) + "\n")
