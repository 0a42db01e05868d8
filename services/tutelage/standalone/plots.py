"""The plots of the demo's report, each as inline SVG."""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from tutelage.standalone.arms import ArmRun

# Okabe and Ito's colours, told apart with any colour vision; an arm keeps its colour in every plot.
COLOURS = {
    "opd": "#0072B2",
    "opd_forward_kl": "#56B4E9",
    "token_kd": "#009E73",
    "sft": "#E69F00",
    "seqkd": "#D55E00",
    "control": "#777777",
}
CURVES = (
    ("accuracy", "share of right answers (held out)", "Accuracy"),
    ("reverse_kl", "nats per token", "Reverse KL to the teacher, on the text learned from"),
    ("student_entropy", "nats per token", "Entropy of the student"),
    ("length", "tokens", "Length of what was learned from"),
)


def curves(runs: Sequence[ArmRun]) -> list[str]:
    """Each metric that was measured over the steps, all arms in one plot."""
    return [
        _curve(name, label, title, runs)
        for name, label, title in CURVES
        if any(series(r.metrics, name)[0] for r in runs)
    ]


def _curve(name: str, label: str, title: str, runs: Sequence[ArmRun]) -> str:
    figure = Figure(figsize=(5.4, 3.1), layout="constrained")
    axes = figure.add_subplot()
    for run in runs:
        steps, values = series(run.metrics, name)
        if steps:
            marker = "o" if name == "accuracy" else None
            axes.plot(steps, values, color=COLOURS[run.arm.name], label=run.arm.name, marker=marker, markersize=4)
    axes.set(xlabel="optimiser step", ylabel=label)
    if name in ("accuracy", "reverse_kl"):
        axes.set_ylim(bottom=0)
    return _finished(figure, axes, title)


def success_by_tag(runs: Sequence[ArmRun], tag: str) -> str:
    """Success of each arm against the tag of the held-out prompts, with the student's before them."""
    figure = Figure(figsize=(8.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    names = list(runs[0].arm.by_tag)
    before = [runs[0].arm.by_tag[name][0] for name in names]
    axes.plot(names, before, color="#999999", linestyle=":", marker="o", markersize=4, label="before")
    for run in runs:
        after = [run.arm.by_tag[name][1] for name in names]
        axes.plot(names, after, color=COLOURS[run.arm.name], marker="o", markersize=4, label=run.arm.name)
    axes.set(xlabel=tag, ylabel="share of right answers", ylim=(0, 1.02))
    return _finished(figure, axes, f"Success against {tag}")


def _finished(figure: Figure, axes: Axes, title: str) -> str:
    """The figure as SVG; text stays text, ids are fixed so that equal runs give equal files."""
    axes.set_title(title, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.legend(frameon=False)
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": title, "font.family": "sans-serif", "font.size": 10}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    return f'<figure role="img" aria-label="{html.escape(title)}">{svg[svg.index("<svg") :]}</figure>'


def series(rows: Sequence[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """Steps and values where the metric was measured."""
    measured = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    return [step for step, _ in measured], [value for _, value in measured]
