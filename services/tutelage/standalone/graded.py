"""Stages that are graded: before and after are the shares of right answers as the runs themselves evaluate them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from tutelage.standalone.arms import ArmRun, Bench, StageRuns, arm_of, first_and_last, follow
from tutelage.standalone.stages import Stage
from tutelage_client.spec import RunSpec


async def run_stage(bench: Bench, stage: Stage, specs: Sequence[RunSpec]) -> StageRuns:
    """All arms at once, as far as there are trainers; they share the cores, so their seconds compare nothing."""
    with bench.progress() as progress:
        finished = await asyncio.gather(*(follow(bench, spec, progress) for spec in specs))
    runs = []
    for run in finished:
        by_tag = {tag: first_and_last(run.rows, f"accuracy/{tag}") for tag in tags(run.rows)}
        arm = arm_of(run, *first_and_last(run.rows, "accuracy"), by_tag=by_tag)
        runs.append(ArmRun(arm, run.view.id, run.spec, run.rows))
    return StageRuns(stage, runs)


def tags(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The tags by which accuracy was measured, in the order of the metric's rows."""
    return [name.removeprefix("accuracy/") for name in rows[0] if name.startswith("accuracy/")]


def table(done: StageRuns) -> Table:
    """Before, after, and what it cost."""
    title = f"{done.stage.name}: share of right answers on held-out prompts"
    rows = Table(title=title, caption="The arms shared the cores: their seconds compare nothing.")
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
