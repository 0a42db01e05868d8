"""The model card of a run: what it is, who taught it, by which method, on what, for how much, what came of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tutelage_client.spec.words import objective, rollout
from tutelage_client.wire import RunView

# What is shown of the metrics: of each its first and its last value. All of them are beside the model.
RESULTS = ("accuracy", "eval_loss", "reverse_kl", "loss", "student_entropy", "length", "reward")
Rows = Sequence[Mapping[str, Any]]


def card(run: RunView, rows: Rows) -> str:
    """Markdown with a head that model hubs read. rows: the metrics of its steps"""
    sections = {
        "Teacher": _teachers(run),
        "Method": _method(run.spec),
        "Data": _data(run.spec),
        "Budget": _budget(run),
        "Results": _results(rows),
    }
    parts = [_head(run.spec), f"# {run.name}", _student(run)]
    parts += [f"## {title}\n\n" + "\n".join(lines) for title, lines in sections.items()]
    return "\n\n".join(parts) + "\n"


def _head(spec: Mapping[str, Any]) -> str:
    student = spec["student"]
    lines = ["library_name: transformers", "tags:", "- tutelage", "- distillation"]
    if student.get("revision"):  # only then it is the name of a model on the hub
        lines += [f"base_model: {json.dumps(student['model'])}", f"base_model_revision: {student['revision']}"]
    return "\n".join(["---", *lines, "---"])


def _student(run: RunView) -> str:
    student = run.spec["student"]
    revision = f" at `{student['revision']}`" if student.get("revision") else ""
    how = f"LoRA adapters of rank {student['lora']['rank']}, merged" if student.get("lora") else "all weights"
    return (
        f"`{student['model']}`{revision} after {run.step} steps of the run `{run.id}` of Tutelage: {how}, "
        f"in {student.get('dtype', 'float32')}."
    )


def _teachers(run: RunView) -> Iterator[str]:
    """As the trainer held their answers to; what is registered under their names by now says nothing of this run."""
    refs = run.spec.get("teachers", [])
    names = [name for teacher in refs for name in (teacher["name"], teacher.get("failover_to")) if name]
    for name in dict.fromkeys(names):
        if run.teachers is None or name not in run.teachers:
            yield f"- {name}: which model it was is not known, as the release that trained this run did not keep it"
            continue
        who = run.teachers[name]
        model = f"`{who.model}`, revision `{who.model_revision}`"
        yield f"- {name}: {model}, {who.dtype} in {who.engine} {who.engine_version}"
    if not names:
        yield "None."


def _method(spec: Mapping[str, Any]) -> Iterator[str]:
    yield f"- objective: {objective(spec['objective'])}"
    if words := rollout(spec.get("rollout", {})):
        yield f"- learned from: {words}"
    if spec.get("reward"):
        yield f"- reward: {spec['reward']['by']['kind']}"
    if kinds := [each["kind"] for each in spec.get("stabilizers", [])]:
        yield f"- stabilizers: {', '.join(kinds)}"
    yield f"- seed {spec.get('seed', 0)}; the whole of it is in `../spec.json`"


def _data(spec: Mapping[str, Any]) -> Iterator[str]:
    data = spec.get("data", {})
    for use in ("train", "eval"):
        if data.get(use):
            yield f"- {use}: `{data[use]}`"
    if data.get("grader"):
        yield f"- graded by: {data['grader']['kind']}"
    if not data.get("train"):
        yield "- rollouts that were written elsewhere and pushed to the run"


def _budget(run: RunView) -> Iterator[str]:
    limits = run.spec.get("budget", {})
    yield f"- steps: {run.step} of {run.steps}"
    yield f"- teacher tokens: {_spent(run.teacher_tokens, limits.get('teacher_tokens'))}"
    if (usd := run.metrics.get("teacher_usd")) is not None:
        yield f"- teacher cost in USD: {_spent_usd(usd, limits.get('teacher_usd'))}"
    yield f"- student tokens: {run.student_tokens:,}"
    if run.started_at and run.ended_at:
        seconds, limit = round((run.ended_at - run.started_at).total_seconds()), limits.get("wall_clock_s")
        yield f"- seconds: {_spent(seconds, limit)}"


def _spent(count: int, limit: float | None) -> str:
    return f"{count:,}" if limit is None else f"{count:,} of at most {limit:,.0f}"


def _spent_usd(usd: float, limit: float | None) -> str:
    return f"{usd:,.4f}" if limit is None else f"{usd:,.4f} of at most {limit:,.4f}"


def _results(rows: Rows) -> Iterator[str]:
    yield "| metric | first | last |"
    yield "|---|---|---|"
    for name in RESULTS:
        known = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
        if known:
            (first_step, first), (last_step, last) = known[0], known[-1]
            yield f"| {name} | {first:.4g} (step {first_step}) | {last:.4g} (step {last_step}) |"
