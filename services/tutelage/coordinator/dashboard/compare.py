"""Two runs side by side: where their specs differ, where each stands, and their metrics over one another."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.coordinator import runs
from tutelage.coordinator.dashboard import history, views
from tutelage.coordinator.dashboard.charts import CHARTS, Chart, Line
from tutelage.coordinator.dashboard.history import Columns, History, Mark
from tutelage.coordinator.dashboard.views import Table
from tutelage.coordinator.db import now
from tutelage_client.spec import differing
from tutelage_client.wire import RunView

SIDES = ("a", "b")


class Fork(NamedTuple):
    """One of the two began at a checkpoint of the other. child, parent: of SIDES"""

    child: str
    parent: str
    step: int


class Difference(NamedTuple):
    """A setting that is not the same. values: as JSON; None: that spec has no such setting."""

    key: str
    values: tuple[str | None, str | None]


@dataclass(frozen=True)
class Comparison:
    """fork: where they are of one line; charts, tables, series: as of a run's page, with a line for each of the two."""

    runs: tuple[RunView, RunView]
    now_s: float
    fork: Fork | None
    widths: tuple[int, int]
    differences: list[Difference]
    charts: list[Chart]
    tables: dict[str, Table]
    series: dict[str, Any]


def comparison(session: Session, run_id: str, other_id: str) -> Comparison:
    """Raises ServiceProblem: 404 `run_not_found`."""
    one, other = (runs.view(runs.find(session, each)) for each in (run_id, other_id))
    pasts = history.history(session, one.id), history.history(session, other.id)
    charts, together, fork = [_of_both(chart) for chart in CHARTS], _together(pasts), _fork(one, other)
    if fork is not None:
        _join(together, fork)
    marks = [] if fork is None else [Mark(fork.step, "start", f"{fork.child.upper()} was forked")]
    return Comparison(
        runs=(one, other),
        now_s=session.scalars(select(now())).one(),
        fork=fork,
        widths=(pasts[0].width, pasts[1].width),
        differences=[_difference(key, one.spec, other.spec) for key in differing(one.spec, other.spec)],
        charts=charts,
        tables={chart.key: views.table(chart, together) for chart in charts},
        series=views.series(charts, together, marks),
    )


def _of_both(chart: Chart) -> Chart:
    """The chart's first line, of each run."""
    column, label = chart.lines[0].column, chart.lines[0].label
    title = chart.title if len(chart.lines) == 1 else f"{chart.title}, {label}"
    lines = Line(f"a/{column}", "A", "student"), Line(f"b/{column}", "B", "teacher")
    return Chart(chart.key, title, chart.unit.partition(";")[0], lines, "Neither run has measured it.")


def _together(pasts: Sequence[History]) -> History:
    """Over the steps of both; where one has no value at a step of the other, its line goes on."""
    steps = sorted({step for past in pasts for step in past.steps})
    at = {step: place for place, step in enumerate(steps)}

    def spread(which: str) -> Columns:
        found: Columns = {}
        for side, past in zip(SIDES, pasts, strict=True):
            places = [at[step] for step in past.steps]
            for name, values in getattr(past, which).items():
                column = found[f"{side}/{name}"] = [None] * len(steps)
                for place, value in zip(places, values, strict=True):
                    column[place] = value
        return found

    return History(max(past.width for past in pasts), steps, [], spread("columns"), spread("lows"), spread("highs"))


def _fork(one: RunView, other: RunView) -> Fork | None:
    for (child, run), (parent, source) in permutations(zip(SIDES, (one, other), strict=True)):
        if run.forked_from is not None and run.forked_from.run_id == source.id:
            return Fork(child, parent, run.forked_from.step)
    return None


def _join(together: History, fork: Fork) -> None:
    """Up to the step at which it was forked the child's line is its parent's, as its student was."""
    before = bisect_right(together.steps, fork.step)
    for columns in (together.columns, together.lows, together.highs):
        for name in [name for name in columns if name.startswith(f"{fork.parent}/")]:
            own = columns.setdefault(name.replace(fork.parent, fork.child, 1), [None] * len(together.steps))
            pairs = zip(own[:before], columns[name][:before], strict=True)
            own[:before] = [inherited if value is None else value for value, inherited in pairs]


def _difference(key: str, one: dict[str, Any], other: dict[str, Any]) -> Difference:
    return Difference(key, (_setting(one, key), _setting(other, key)))


def _setting(spec: Any, key: str) -> str | None:
    for part in key.split("."):
        if isinstance(spec, list):
            spec = spec[int(part)]
        elif isinstance(spec, dict) and part in spec:
            spec = spec[part]
        else:
            return None
    return json.dumps(spec, ensure_ascii=False)
