"""Stages whose outcome is text: what the student writes on held-out prompts is measured from outside the runs.

Every model that an arm ends with is downloaded from the coordinator, as a user would, and measured by the same code and
with the same draws as the student before.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from rich.progress import Progress
from rich.table import Table
from transformers.utils import logging

from tutelage.standalone.arms import ArmRun, Bench, Example, StageRuns, arm_of, follow
from tutelage.standalone.measure import (
    Advance,
    Ids,
    LanguageModel,
    closeness,
    encoded,
    logprob,
    open_model,
    variety,
    write,
)
from tutelage.standalone.stages import Stage
from tutelage.trainer.data import read_lines
from tutelage_client.spec import RunSpec
from tutelage_client.wire import Prompt

Result = TypeVar("Result")

DRAWS_SEED = 1
EXAMPLES_SHOWN = 5

# Name, heading, format: every figure in the order in which it is shown.
FIGURES = (
    ("reverse_kl", "reverse KL", ".3f"),
    ("forward_kl", "forward KL", ".3f"),
    ("teacher_logprob", "teacher log-prob", ".2f"),
    ("teacher_text_logprob", "log-prob of teacher text", ".2f"),
    ("distinct_1", "distinct-1", ".3f"),
    ("distinct_2", "distinct-2", ".3f"),
    ("repetition", "repeated 4-grams", ".2%"),
    ("length", "length", ".1f"),
)


@dataclass(frozen=True)
class Measured:
    """A student's figures by the names of FIGURES, and its texts."""

    figures: dict[str, float]
    texts: list[str]


@dataclass(frozen=True)
class HeldOut:
    """Held-out prompts, the teacher, and what the teacher itself writes to them."""

    teacher: LanguageModel
    prompts: list[Ids]
    shown: list[str]
    teacher_ids: list[Ids]
    max_new_tokens: int

    @property
    def yardstick(self) -> dict[str, float]:
        """The figures of the teacher's own text, as far as they mean something without a student."""
        return asdict(variety(self.teacher_ids))

    def measure(self, folder: Path, advance: Advance = lambda _: None) -> Measured:
        """The student in the directory."""
        student = open_model(folder)
        ids = write(student, self.prompts, self.max_new_tokens, DRAWS_SEED, advance)
        own = closeness(student, self.teacher, self.prompts, ids, advance)
        off_policy = {"teacher_text_logprob": logprob(student, self.prompts, self.teacher_ids, advance)}
        figures = asdict(own) | off_policy | asdict(variety(ids))
        return Measured(figures, [student.text(text) for text in ids])

    @property
    def measuring_steps(self) -> int:
        """How far `measure` advances in all."""
        return 3 * len(self.prompts)


def open_held_out(teacher: Path, prompts: Path, max_new_tokens: int, advance: Advance = lambda _: None) -> HeldOut:
    """Read the prompts and let the teacher write to each.

    Raises:
        InvalidInput: no teacher there, or a malformed line.
    """
    lines = read_lines(prompts, "held-out prompts").values()
    model = open_model(teacher)
    ids = encoded(model, [line.prompt for line in lines])
    shown = [as_text(line.prompt) for line in lines]
    return HeldOut(model, ids, shown, write(model, ids, max_new_tokens, DRAWS_SEED, advance), max_new_tokens)


def as_text(prompt: Prompt) -> str:
    """A prompt to look at: the last thing that was said."""
    if isinstance(prompt, str):
        return prompt
    last = prompt[-1]
    return str(last["content"]) if isinstance(last, dict) else str(list(prompt))


async def run_stage(bench: Bench, stage: Stage, specs: Sequence[RunSpec]) -> StageRuns:
    """The student before, then every arm with its result, one after another."""
    logging.disable_progress_bar()  # it would be drawn across the one below
    prompts = bench.assets / stage.name / "eval.jsonl"
    teacher, student = stage.model(bench.assets, "teacher"), Path(specs[0].student.model)
    with bench.progress() as progress:
        count, length = len(read_lines(prompts, "held-out prompts")), specs[0].rollout.max_new_tokens
        opened = partial(open_held_out, teacher, prompts, length)
        held_out = await _shown(progress, "teacher", "writes to the held-out prompts", count, opened)
        before = await _measured(held_out, student, "before", progress)
        runs = [await _arm(bench, spec, held_out, before, progress) for spec in specs]
    ids = held_out.teacher_ids[:EXAMPLES_SHOWN]
    examples = [
        Example(prompt, held_out.teacher.text(text), written)
        for prompt, text, written in zip(held_out.shown, ids, before.texts, strict=False)
    ]
    return StageRuns(stage, runs, held_out.yardstick, examples)


async def _arm(bench: Bench, spec: RunSpec, held_out: HeldOut, before: Measured, progress: Progress) -> ArmRun:
    finished = await follow(bench, spec, progress)
    folder = await bench.client.download_model(finished.view.id, bench.models / spec.name)
    after = await _measured(held_out, folder, spec.name, progress)
    figures = {name: (before.figures[name], after.figures[name]) for name, *_ in FIGURES}
    arm = arm_of(finished, *figures["reverse_kl"], figures=figures)
    return ArmRun(arm, finished.view.id, spec, finished.rows, after.texts[:EXAMPLES_SHOWN])


async def _measured(held_out: HeldOut, folder: Path, name: str, progress: Progress) -> Measured:
    work = partial(held_out.measure, folder)
    measured = await _shown(progress, name, "is measured on the held-out prompts", held_out.measuring_steps, work)
    progress.console.print(f"{name:<8} reverse KL {measured.figures['reverse_kl']:.3f}", soft_wrap=True)
    return measured


async def _shown(progress: Progress, name: str, doing: str, total: int, work: Callable[[Advance], Result]) -> Result:
    """Do the work in a thread under a bar of its own; when cancelled it ends at its next advance."""
    task = progress.add_task(name, total=total, shown=doing)
    progress.console.print(f"{name:<8} {doing}", soft_wrap=True)
    cancelled = threading.Event()

    def advance(count: int) -> None:
        if cancelled.is_set():
            raise asyncio.CancelledError
        progress.advance(task, count)

    try:
        return await asyncio.to_thread(work, advance)
    finally:
        cancelled.set()


def rows(done: StageRuns) -> list[list[str]]:
    """A header, then a line for each figure: the student before, every arm, the teacher's own text."""
    arms = [run.arm for run in done.runs]
    lines = [["", "before", *(arm.name for arm in arms), "teacher"]]
    for name, heading, form in FIGURES:
        values = [arms[0].figures[name][0], *(arm.figures[name][1] for arm in arms), done.yardstick.get(name)]
        lines.append([heading, *("" if value is None else format(value, form) for value in values)])
    lines.append(["teacher tokens", "", *(f"{arm.teacher_tokens:,}" for arm in arms), ""])
    return [*lines, ["seconds", "", *(f"{arm.seconds:.0f}" for arm in arms), ""]]


def table(done: StageRuns) -> Table:
    """Every figure of the student before, of each arm and of the teacher."""
    shown = Table(title=f"{done.stage.name}: the student's own text on held-out prompts, nats per token")
    header, *lines = rows(done)
    for column in header:
        shown.add_column(column, justify="right" if column else "left")
    for line in lines:
        shown.add_row(*line)
    return shown
