"""What each page shows, read in one transaction."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.coordinator import runs
from tutelage.coordinator.dashboard import history, words
from tutelage.coordinator.dashboard.charts import ALL, Chart, Line
from tutelage.coordinator.dashboard.history import History, Mark
from tutelage.coordinator.db import now
from tutelage.coordinator.leases import checkpoint_view
from tutelage.coordinator.tables import TOLD, CheckpointRow, EventRow
from tutelage_client.wire import CheckpointView, Page, RunView

RUNS_A_PAGE = 50
EVENTS_SHOWN = 60
ROWS_OF_A_TABLE = 24
SPARK_WIDTH, SPARK_HEIGHT = 120, 28


class Spark(NamedTuple):
    """A line without axes. points: of an SVG polyline."""

    name: str
    points: str
    first: float
    last: float


class RunLine(NamedTuple):
    """A run in the list."""

    run: RunView
    waiting: str | None
    remaining_s: float | None
    spark: Spark | None


class Ends(NamedTuple):
    """The first and the last value of a line that has any, each with its step."""

    line: Line
    first: tuple[int, float]
    last: tuple[int, float]


class Table(NamedTuple):
    """The values of a chart for who cannot see it. Each row: a step and a value of each line."""

    rows: list[tuple[int, list[float | None]]]
    ends: list[Ends]


@dataclass(frozen=True)
class RunPage:
    """width: steps of a point; tables: by the key of the chart; series: what the script draws, as JSON."""

    run: RunView
    now_s: float
    last_event: int
    waiting: str | None
    remaining_s: float | None
    width: int
    tables: dict[str, Table]
    marks: list[Mark]
    series: dict[str, Any]
    events: list[EventRow]
    checkpoints: list[CheckpointView]
    spec: str


def run_list(session: Session, project: str, after: str | None) -> Page[RunView]:
    return runs.runs(session, project, None, after, RUNS_A_PAGE)


def run_lines(session: Session, shown: Sequence[RunView]) -> list[RunLine]:
    lines = history.sparklines(session, [run.id for run in shown])
    return [
        RunLine(run, words.waiting(run), words.remaining_s(run), _spark(*lines.get(run.id, ("loss", []))))
        for run in shown
    ]


def _spark(name: str, values: list[float]) -> Spark | None:
    """A single value is a line of no length, which round ends make a dot."""
    if not values:
        return None
    middle, last = (min(values) + max(values)) / 2, len(values) - 1
    across, up = (SPARK_WIDTH - 4) / (last or 1), (SPARK_HEIGHT - 4) / ((max(values) - min(values)) or 1.0)
    places = [f"{2 + i * across:.1f},{SPARK_HEIGHT / 2 - (v - middle) * up:.1f}" for i, v in enumerate(values)]
    return Spark(name, " ".join([*places, places[-1]]), values[0], values[-1])


def run_page(session: Session, run_id: str) -> RunPage:
    """Everything of one run.

    Raises:
        ServiceProblem: 404 `run_not_found`.
    """
    row = runs.find(session, run_id)
    run, past, kept = runs.view(row), history.history(session, run_id), _checkpoints(session, run_id)
    marks = history.marks(session, row, [each.step for each in kept], past)
    return RunPage(
        run=run,
        now_s=session.scalars(select(now())).one(),
        last_event=row.last_event,
        waiting=words.waiting(run),
        remaining_s=words.remaining_s(run),
        width=past.width,
        tables={chart.key: table(chart, past) for chart in ALL},
        marks=marks,
        series=series(ALL, past, marks),
        events=_events(session, run_id),
        checkpoints=kept,
        spec=json.dumps(run.spec, indent=2, ensure_ascii=False),
    )


def series(charts: Iterable[Chart], past: History, marks: list[Mark]) -> dict[str, Any]:
    """What the script draws. Five figures are more than a chart can show."""
    names = [line.column for chart in charts for line in chart.lines]
    columns, lows, highs = (
        {name: [None if value is None else float(f"{value:.5g}") for value in of[name]] for name in names if name in of}
        for of in (past.columns, past.lows, past.highs)
    )
    told = {"columns": columns, "lows": lows, "highs": highs, "steps": past.steps}
    return told | {"marks": [mark._asdict() for mark in marks]}


def table(chart: Chart, past: History) -> Table:
    lines = [past.columns[line.column] for line in chart.lines]
    known = [at for at in range(len(past.steps)) if any(line[at] is not None for line in lines)]
    every = max(1, -(-len(known) // ROWS_OF_A_TABLE))
    thinned = known[::-every][::-1]  # so that the last is there
    rows = [(past.steps[at], [line[at] for line in lines]) for at in thinned]
    return Table(rows, [ends for line in chart.lines for ends in _ends(line, past)])


def _ends(line: Line, past: History) -> list[Ends]:
    """None or one."""
    values = zip(past.steps, past.columns[line.column], strict=True)
    known = [(step, value) for step, value in values if value is not None]
    return [Ends(line, known[0], known[-1])] if known else []


def _events(session: Session, run_id: str) -> list[EventRow]:
    """The newest first, without those of metrics, which the charts show."""
    query = select(EventRow).where(EventRow.run_id == run_id, TOLD)
    return list(session.scalars(query.order_by(EventRow.id.desc()).limit(EVENTS_SHOWN)))


def _checkpoints(session: Session, run_id: str) -> list[CheckpointView]:
    query = select(CheckpointRow).where(CheckpointRow.run_id == run_id).order_by(CheckpointRow.step.desc())
    return [checkpoint_view(row) for row in session.scalars(query.limit(history.MOST_MARKS))]
