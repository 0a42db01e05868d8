"""A run's rows of metrics as columns, thinned to what a chart can show, and the moments worth a mark."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session

from tutelage.coordinator.tables import EventRow, MetricRow, RunRow

MOST_POINTS = 600
MOST_MARKS = 100
SPARK_POINTS = 60

# Read as they are.
COLUMNS = (
    "reverse_kl",
    "log_ratio_p10/0-15",
    "log_ratio_p90/0-15",
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
    """steps: those that are shown, every `stride`-th and every evaluated one; columns: a value or None of each."""

    steps: list[int]
    times: list[float]
    columns: Columns
    stride: int


def history(session: Session, run: RunRow) -> History:
    """At most about twice MOST_POINTS steps of a run."""
    stride, evaluated = _stride(run.step, 1), _stride(run.step, run.spec["eval"]["every"])
    shown = or_(MetricRow.step % stride == 0, MetricRow.step % evaluated == 0, MetricRow.step == run.step)
    query = select(MetricRow.step, MetricRow.created_at, *map(_number, COLUMNS))
    rows = session.execute(query.where(MetricRow.run_id == run.id, shown).order_by(MetricRow.step)).all()
    named: Columns = {name: [row[at] for row in rows] for at, name in enumerate(COLUMNS, start=2)}
    return History([row[0] for row in rows], [row[1] for row in rows], named | derived(named), stride)


def _stride(steps: int, every: int) -> int:
    return every * max(1, ceil(steps / every / MOST_POINTS))


def _number(name: str) -> ColumnElement[float]:
    return MetricRow.metrics[name].as_float()


def derived(of: Columns) -> Columns:
    """log p - log q of the written tokens is a sample of the reverse KL: log_ratio with the sign turned."""
    return {
        "gap_p10": [None if high is None else -high for high in of["log_ratio_p90/0-15"]],
        "gap_p90": [None if low is None else -low for low in of["log_ratio_p10/0-15"]],
        "tokens_per_s": [_rate(*pair) for pair in zip(of["tokens"], of["seconds"], strict=True)],
        "writing_s": [_rest(*parts) for parts in zip(of["seconds"], of["learn_s"], of["wait_s"], strict=True)],
    }


def _rate(tokens: Value, seconds: Value) -> Value:
    return tokens / seconds if tokens is not None and seconds else None


def _rest(seconds: Value, learn_s: Value, wait_s: Value) -> Value:
    return None if seconds is None else max(0.0, seconds - (learn_s or 0.0) - (wait_s or 0.0))


def sparkline(session: Session, run_id: str) -> tuple[str, list[float]]:
    """Of the last steps the reverse KL, or the loss of a run that has none, with its name."""
    query = select(_number("reverse_kl"), _number("loss")).where(MetricRow.run_id == run_id)
    rows = session.execute(query.order_by(MetricRow.step.desc()).limit(SPARK_POINTS)).all()[::-1]
    kl = [row[0] for row in rows if row[0] is not None]
    return ("reverse KL", kl) if kl else ("loss", [row[1] for row in rows if row[1] is not None])


def marks(session: Session, run: RunRow, checkpoints: Sequence[int], shown: History) -> list[Mark]:
    """Checkpoints, attempts, pauses and teachers lost or found, the newest MOST_MARKS of the latter kinds."""
    telling = EventRow.type.in_(("state", "teacher"))
    query = select(EventRow).where(EventRow.run_id == run.id, telling).order_by(EventRow.id.desc()).limit(MOST_MARKS)
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
    done = [step for step, at in zip(shown.steps, shown.times, strict=True) if at <= time]
    return done[-1] if done else shown.steps[0]
