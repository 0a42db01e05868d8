"""What a run did in all, as counters that never fall: what a later attempt does again counts again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.coordinator.tables import MetricRow, RunRow

# Names of rows that count since the run began. The rows of an attempt go on from the checkpoint that it began at.
ROLLOUTS = ("submitted", "trained", "stale", "dead_lettered", "skipped", "dropped")
_COUNTING = ("teacher_usd", *(f"rollouts/{fate}" for fate in ROLLOUTS))
BESIDE = {
    "evaluate": "eval_s",
    "checkpoint": "checkpoint_s",
}  # of phases that are no part of a step their names in rows
PHASES = ("write", "wait", "learn", *BESIDE)


# Of totals that add what each row tells of its own step, the name there.
_OF_STEP = {
    "tokens/prompt": "prompt_tokens",
    "tokens/response": "tokens",
    "tokens/trained": "learned_tokens",
    "checkpoint_failures": "checkpoint_failures",
}
AT_LAG = "rollouts_at_lag/"


class Counts(NamedTuple):
    """A row. metrics: null where a value is not finite"""

    metrics: Mapping[str, float | None]
    student_tokens: int
    teacher_tokens: int

    def since_begin(self) -> dict[str, float]:
        told = {name: value for name in _COUNTING if (value := self.metrics.get(name)) is not None}
        return told | {"student_tokens": self.student_tokens, "teacher_tokens": self.teacher_tokens}


def count(session: Session, run: RunRow, step: int, told: Counts) -> None:
    """Add a row that is new to its attempt. The run's row is locked by the caller."""
    columns = MetricRow.metrics, MetricRow.student_tokens, MetricRow.teacher_tokens
    earlier = select(*columns).where(MetricRow.run_id == run.id, MetricRow.step < step)
    before = session.execute(earlier.order_by(MetricRow.step.desc()).limit(1)).first()
    grown = _growth({} if before is None else Counts(*before).since_begin(), told.since_begin())
    lacking = any(name in told.metrics and told.metrics[name] is None for name in ("loss", "grad_norm"))
    own = phases(told.metrics) | _of_step(told.metrics) | {"nonfinite_steps": float(lacking)}
    run.totals = _added(run.totals, grown | own)


def crashed(run: RunRow) -> None:
    """An attempt crashed. `crashes` is forgiven at the next checkpoint, the total is not."""
    run.crashes += 1
    run.totals = _added(run.totals, {"crashes": 1})


def _of_step(metrics: Mapping[str, float | None]) -> dict[str, float]:
    at_lag = {name: count for name, count in metrics.items() if name.startswith(AT_LAG) and count is not None}
    return {total: metrics.get(name) or 0.0 for total, name in _OF_STEP.items()} | at_lag


def phases(metrics: Mapping[str, float | None]) -> dict[str, float]:
    """Seconds of a step in parts: until its last rollout, from then until the last score, from then to its end; and
    those that went by beside it.

    Of text that was written ahead a step waits for less than `wait_s`, or not at all.
    """
    beside = {f"seconds/{phase}": metrics.get(name) or 0.0 for phase, name in BESIDE.items()}
    seconds, learn_s = metrics.get("seconds"), metrics.get("learn_s")
    if seconds is None or learn_s is None:
        return beside
    marked_s = max(0.0, seconds - learn_s)
    wait_s = min(metrics.get("wait_s") or 0.0, marked_s)
    return {"seconds/write": marked_s - wait_s, "seconds/wait": wait_s, "seconds/learn": learn_s} | beside


def _growth(before: Mapping[str, float], now: Mapping[str, float]) -> dict[str, float]:
    """Never below zero: an attempt writes again what was under way at its checkpoint."""
    return {name: max(0.0, value - before.get(name, 0.0)) for name, value in now.items()}


def _added(totals: Mapping[str, Any], more: Mapping[str, float]) -> dict[str, Any]:
    return {**totals, **{name: totals.get(name, 0.0) + value for name, value in more.items()}}
