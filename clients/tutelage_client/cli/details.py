"""Everything about one run on one screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.text import Text

from tutelage_client.cli import show
from tutelage_client.spec.words import objective, rollout
from tutelage_client.wire import CheckpointView, RunView


def describe(run: RunView, checkpoints: Sequence[CheckpointView]) -> None:
    """What it is, how far it is, what it has cost, and why it failed if it did."""
    show.facts(
        [
            ("run", run.id),
            ("name", run.name),
            ("status", _status(run)),
            ("error", _error(run)),
            ("step", f"{run.step} of {run.steps}"),
            ("metrics", _metrics(run)),
            ("tokens", f"{show.count(run.student_tokens)} student, {show.count(run.teacher_tokens)} teacher"),
            ("labels", " ".join(f"{key}={value}" for key, value in sorted(run.labels.items())) or None),
            ("note", run.note),
            ("created", show.ago(run.created_at)),
            ("took", _took(run)),
            ("forked from", _origin(run)),
            ("attempts", str(run.epoch) if run.epoch > 1 else None),
            ("conditions", _conditions(run)),
            ("student", _value(run.spec.get("student", {}), "model")),
            ("teacher", ", ".join(str(teacher["name"]) for teacher in run.spec.get("teachers", [])) or None),
            ("objective", objective(run.spec.get("objective", {}))),
            ("rollout", rollout(run.spec.get("rollout", {}))),
            ("checkpoint", _checkpoint(checkpoints)),
        ]
    )


def _status(run: RunView) -> Text:
    text = show.styled(run.status)
    return text.append(f" ({show.clean(run.status_reason)})", style="") if run.status_reason else text


def _error(run: RunView) -> Text | None:
    if run.error is None:
        return None
    error = run.error
    said = f"{error.message} ({error.category}, {error.code}, step {error.step})"
    return Text(str(show.clean(said)), style="red")


def _metrics(run: RunView) -> str | None:
    names = [name for name in ("reverse_kl", "loss", "accuracy", "student_entropy", "length") if name in run.metrics]
    return ", ".join(f"{name} {show.number(run.metrics[name])}" for name in names) or None


def _took(run: RunView) -> str | None:
    if run.started_at is None or run.ended_at is None:
        return None
    return show.span((run.ended_at - run.started_at).total_seconds())


def _origin(run: RunView) -> str | None:
    if run.forked_from is None:
        return None
    changed = ", ".join(run.forked_from.changed) or "nothing"
    return f"{run.forked_from.run_id} at step {run.forked_from.step}, changed: {changed}"


def _conditions(run: RunView) -> str | None:
    return ", ".join(f"{name}: {'yes' if holds else 'no'}" for name, holds in run.conditions.items()) or None


def _checkpoint(checkpoints: Sequence[CheckpointView]) -> str | None:
    return f"step {checkpoints[-1].step} in {checkpoints[-1].path}" if checkpoints else None


def _value(section: dict[str, Any], name: str) -> str | None:
    return None if section.get(name) is None else str(section[name])
