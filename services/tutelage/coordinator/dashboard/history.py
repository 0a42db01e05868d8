"""A run's metrics as columns, as many points as a chart can show, and the moments worth a mark."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from tutelage.coordinator.buckets import grain
from tutelage.coordinator.tables import TOLD, EventRow, MetricRow, RunRow

MOST_POINTS = 600
MOST_MARKS = 100
SPARK_POINTS = 60

# Read as they are.
COLUMNS = (
    "reverse_kl",
    "reverse_kl_p10",
    "reverse_kl_p90",
    "accuracy",
    "student_entropy",
    "teacher_entropy",
    "length",
    "truncated",
    "grad_norm",
    "tokens",
    "seconds",
    "learn_s",
    "wait_s",
    "eval_s",
    "checkpoint_s",
)
_MARKED = {"recovering": "lost", "paused": "pause", "failed": "lost"}

Value = float | None
Columns = dict[str, list[Value]]


class Mark(NamedTuple):
    """A moment on the charts. kind: checkpoint, start, pause, lost or teacher."""

    step: int
    kind: str
    label: str


class History(NamedTuple):
    """A run in buckets of `width` steps. steps: the last of each, reported at `times`; columns: means, or None.

    lows, highs: the least and the largest value in each bucket, of COLUMNS; empty where a bucket is one step
    """

    width: int
    steps: list[int]
    times: list[float]
    columns: Columns
    lows: Columns
    highs: Columns


def history(session: Session, run_id: str, most: int = MOST_POINTS) -> History:
    """The whole run in at most so many buckets."""
    width, found = grain(session, run_id, most)
    lows, means, highs = (
        {name: [bucket.spreads[name][at] if name in bucket.spreads else None for bucket in found] for name in COLUMNS}
        for at in (1, 2, 3)
    )
    steps, times = [bucket.last_step for bucket in found], [bucket.last_at for bucket in found]
    outer: tuple[Columns, Columns] = (lows, highs) if width > 1 else ({}, {})
    return History(width, steps, times, means | derived(means), *outer)


def _number(name: str) -> ColumnElement[float]:
    return MetricRow.metrics[name].as_float()


def derived(of: Columns) -> Columns:
    return {
        "tokens_per_s": [_rate(*pair) for pair in zip(of["tokens"], of["seconds"], strict=True)],
        "writing_s": [_rest(*parts) for parts in zip(of["seconds"], of["learn_s"], of["wait_s"], strict=True)],
    }


def _rate(tokens: Value, seconds: Value) -> Value:
    return tokens / seconds if tokens is not None and seconds else None


def _rest(seconds: Value, learn_s: Value, wait_s: Value) -> Value:
    return None if seconds is None else max(0.0, seconds - (learn_s or 0.0) - (wait_s or 0.0))


def sparklines(session: Session, run_ids: Sequence[str]) -> dict[str, tuple[str, list[float]]]:
    """Of each run's last steps the reverse KL, or the loss of one that has none, with its name."""
    query = select(MetricRow.run_id, _number("reverse_kl"), _number("loss")).join(RunRow, RunRow.id == MetricRow.run_id)
    query = query.where(RunRow.id.in_(run_ids), MetricRow.step > RunRow.step - SPARK_POINTS)
    rows = session.execute(query.order_by(MetricRow.run_id, MetricRow.step))
    return {run_id: _spark([row[1:] for row in of]) for run_id, of in groupby(rows, lambda row: row[0])}


def _spark(rows: Sequence[Sequence[Value]]) -> tuple[str, list[float]]:
    kl, loss = ([value for row in rows if (value := row[at]) is not None] for at in (0, 1))
    return ("reverse KL", kl) if kl else ("loss", loss)


def marks(session: Session, run: RunRow, checkpoints: Sequence[int], shown: History) -> list[Mark]:
    """Checkpoints, attempts, pauses and teachers lost or found, the newest MOST_MARKS of the latter kinds."""
    telling = EventRow.run_id == run.id, TOLD, EventRow.type.in_(("state", "teacher"))
    query = select(EventRow).where(*telling).order_by(EventRow.id.desc()).limit(MOST_MARKS)
    found = [Mark(step, "checkpoint", f"checkpoint at step {step}") for step in checkpoints]
    for event in reversed(session.scalars(query).all()):
        kind = "teacher" if event.type == "teacher" else _kind(event.data)
        if kind is not None and shown.steps:
            found.append(Mark(_step_at(shown, event.created_at), kind, event.message))
    return found


def _kind(state: dict[str, Any]) -> str | None:
    if state.get("to") == "starting" and state.get("epoch", 0) > 1:
        return "start"
    return _MARKED.get(str(state.get("to")))


def _step_at(shown: History, time: float) -> int:
    """The last shown step that was done by then."""
    return shown.steps[max(0, bisect_right(shown.times, time) - 1)]
