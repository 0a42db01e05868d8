"""Following a run to its end: a bar on a terminal, plain lines elsewhere, JSON lines where they were asked for."""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
from collections.abc import Sequence
from contextlib import aclosing
from typing import Protocol

from rich.constrain import Constrain
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from tutelage_client.cli import show
from tutelage_client.cli.connect import PATIENT, coordinator, coordinator_url, the_run
from tutelage_client.cli.progress import LINES_A_RUN, Progress
from tutelage_client.wire import EventView, RunStatus, RunView

BAR_WIDTH = 30  # status, bar and steps


class Screen(Protocol):
    """Where a run is shown."""

    def event(self, event: EventView) -> None: ...

    def end(self) -> None:
        """Nothing more comes."""
        ...


class JsonLines:
    """{"event": ..} for each event."""

    def event(self, event: EventView) -> None:
        show.line({"event": event})

    def end(self) -> None:
        return


class PlainLines:
    """A line for each change of status, each warning, each evaluation and every few steps; no control codes."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._every = math.ceil(progress.steps / LINES_A_RUN)
        self._next = 0

    def event(self, event: EventView) -> None:
        said = self._line(event)
        if said is not None:
            print(f"{event.created_at.astimezone():%H:%M:%S}  {show.clean(said)}", flush=True)

    def _line(self, event: EventView) -> str | None:
        if event.type == "state":
            return _status(event)
        if event.level != "info":
            return f"{event.level}: {event.message}"
        if event.type == "metrics" and self._is_due(event):
            return self._step()
        return None

    def _step(self) -> str:
        """Only what this step measured: a figure that is repeated looks as if it had been measured again."""
        progress = self._progress
        return "  ".join([f"step {progress.step}/{progress.steps}", *progress.figures(progress.newest)])

    def _is_due(self, event: EventView) -> bool:
        step = self._progress.step
        due = step >= self._next or step == self._progress.steps or event.data.get("accuracy") is not None
        if due:
            self._next = step - step % self._every + self._every
        return due

    def end(self) -> None:
        return


class LiveBar:
    """One line that moves; warnings stay above it."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        figures = TextColumn("{task.fields[figures]}", markup=False)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=None, finished_style="green"),
            MofNCompleteColumn(),
            figures,
        )
        self._bar = Bar(*columns, expand=True)
        self._task = self._bar.add_task("queued", total=progress.steps, figures="")
        self._console = show.console()
        self._live = Live(console=self._console, get_renderable=self._line)
        self._live.start()

    def event(self, event: EventView) -> None:
        progress = self._progress
        if event.level != "info":
            message = show.clean(f"{event.level}: {event.message}")
            self._console.print(message, style=show.STYLES[event.level], soft_wrap=True)
        figures = fitting(progress.figures(progress.last), self._console.width - BAR_WIDTH)
        self._bar.update(self._task, completed=progress.step, description=progress.status, figures=figures)

    def end(self) -> None:
        self._live.stop()

    def _line(self) -> Constrain:
        """Ends before the right edge: the ^C that a terminal echoes there would break the line."""
        return Constrain(self._bar.make_tasks_table(self._bar.tasks), self._console.width - len("^C"))


def fitting(parts: Sequence[str], width: int) -> str:
    """As many of the parts as fit, so that a narrow terminal keeps status, bar and steps."""
    kept = list(parts)
    while len("  ".join(kept)) > max(width, 0):
        kept.pop()
    return "  ".join(kept)


def screen(args: argparse.Namespace, progress: Progress) -> Screen:
    if args.json:
        return JsonLines()
    return LiveBar(progress) if show.can_move() else PlainLines(progress)


async def watch(args: argparse.Namespace) -> int:
    """`tutelage runs watch ID`."""
    async with the_run(args) as run:
        view = await run.view()
    return await follow(args, view)


async def queued(args: argparse.Namespace, run: RunView) -> int:
    """Say which run was queued, and follow it where that is wanted."""
    if args.json and not args.watch:
        show.document(run)
    elif not args.json:
        show.say(f"{run.id}  {coordinator_url(args)}/v1/runs/{run.id}")
    return await follow(args, run) if args.watch else 0


async def follow(args: argparse.Namespace, run: RunView) -> int:
    """Show a run until it ends; the exit code says how. Ctrl-C ends only the showing."""
    if args.json:
        show.line({"run": run})
    progress = Progress(run.steps)
    async with coordinator(args, PATIENT) as client:
        shown = screen(args, progress)
        try:
            followed = client.run(run.id)
            async with aclosing(followed.events()) as events:
                async for event in events:
                    progress.take(event)
                    shown.event(event)
            ended = await followed.view()
        except asyncio.CancelledError:  # Ctrl-C, as asyncio hands it over
            ended = None
        finally:
            shown.end()
    if ended is None:
        return _left_running(run.id)
    return _conclude(args, ended, progress)


def _status(event: EventView) -> str:
    to, reason = event.data.get("to"), event.data.get("reason")
    hint = "waiting for a trainer" if to == RunStatus.QUEUED else None
    notes = "; ".join(note for note in (reason, hint) if note)
    return f"{to} ({notes})" if notes else str(to)


def _left_running(run_id: str) -> int:
    follow_it, cancel_it = f"tutelage runs watch {run_id}", f"tutelage runs cancel {run_id}"
    print(f"\n{run_id} goes on; follow it with `{follow_it}`, cancel it with `{cancel_it}`", file=sys.stderr)
    return 130


def _conclude(args: argparse.Namespace, run: RunView, progress: Progress) -> int:
    """The last words about a run that has ended, and the exit code."""
    if args.json:
        show.line({"run": run})
    elif run.status is RunStatus.SUCCEEDED:
        took = (
            f" in {show.span((run.ended_at - run.started_at).total_seconds())}"
            if run.ended_at and run.started_at
            else ""
        )
        changes = progress.changes()
        show.say(f"{run.id} succeeded{took}" + (f": {changes}" if changes else ""))
        show.say(f"Its model: tutelage runs model {run.id} --out DIR")
    return outcome(run)


def outcome(run: RunView) -> int:
    """0 for a success; else one sentence on stderr, with 2 where the run's owner can mend it and 1 otherwise."""
    if run.status is RunStatus.SUCCEEDED:
        return 0
    if run.error is None:
        print(f"tutelage: {run.id} was {run.status} at step {run.step} of {run.steps}", file=sys.stderr)
        return 1
    why = f"{run.id} failed at step {run.error.step} ({run.error.category}): {run.error.message}"
    print(f"tutelage: {show.clean(why)}", file=sys.stderr)
    return 2 if run.error.category == "user" else 1
