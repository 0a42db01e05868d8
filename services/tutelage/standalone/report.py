"""The demo's report: one HTML file that stands alone, with the table, the plots and what they mean."""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from tutelage.standalone.demo import ArmRun

# Okabe and Ito's colours, told apart with any colour vision; an arm keeps its colour in every plot.
COLOURS = {"opd": "#0072B2", "sft": "#E69F00", "control": "#777777"}
PLOTS = (
    ("accuracy", "share of right answers (held out)", "Accuracy"),
    ("reverse_kl", "nats per token", "Reverse KL to the teacher, on the student's own text"),
    ("student_entropy", "nats per token", "Entropy of the student"),
    ("length", "tokens", "Length of what was learned from"),
)
STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --line: #d0d7de; --page: #ffffff; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9da7b3; --line: #30363d; --page: #0d1117; } }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--page); margin: 0 auto;
       max-width: 62rem; padding: 2.5rem 1.5rem; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
p { max-width: 44rem; } .lead { color: var(--soft); margin-top: 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .45rem .7rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { text-align: left; } th { color: var(--soft); font-weight: 500; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(24rem, 1fr)); gap: 1rem; }
figure { margin: 0; background: #fff; border: 1px solid var(--line); border-radius: 6px; padding: .5rem; }
figure svg { width: 100%; height: auto; display: block; }
code { font-size: .92em; } footer { margin-top: 2.5rem; color: var(--soft); font-size: .9rem; }
.swatch { display: inline-block; width: .7rem; height: .7rem; border-radius: 2px; margin-right: .5rem; }
"""
MEANING = {
    "opd": "The student writes, the teacher marks every token, the student learns from the marks (reverse KL).",
    "sft": "The teacher writes, the student learns to write the same (continued supervised fine-tuning).",
    "control": "The student writes and is penalised for it by a constant. No teacher: what a run alone does.",
}


def write_report(path: Path, runs: Sequence[ArmRun]) -> None:
    """Write the report of these runs."""
    figures = [_figure(name, label, title, runs) for name, label, title in PLOTS]
    best, control = runs[0].arm, runs[-1].arm
    body = f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Tutelage demo: skill</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>
<h1>A student learns to add</h1>
<p class="lead">Stage <code>skill</code>: column addition, graded exactly on problems that no arm trained on.</p>
<p>On-policy distillation took the student from {best.before:.1%} to {best.after:.1%}; the control without a teacher
ended at {control.after:.1%}. Every arm was a run of its own, submitted over HTTP to the same services that a cluster
runs, starting from the same cold-started student.</p>
<h2>Before and after</h2>{_table(runs)}
<p>The task is deterministic and a wrong digit cannot be mended later, so theory does not promise that on-policy text
beats fresh text of the teacher here. What it shows is that a student can be taught on its own words.</p>
<h2>On the way</h2><div class="plots">{"".join(figures)}</div>
<h2>The arms</h2><dl>{"".join(_meaning(run) for run in runs)}</dl>
<footer>Made by <code>make demo</code>. Figures as data: <code>result.json</code>.</footer></body></html>
"""
    path.write_text(body)


def _table(runs: Sequence[ArmRun]) -> str:
    head = ("arm", "before", "after", "change", "student tokens", "teacher tokens", "seconds")
    rows = []
    for run in runs:
        arm = run.arm
        swatch = f'<span class="swatch" style="background:{COLOURS[arm.name]}"></span>'
        cells = (
            swatch + html.escape(arm.name),
            f"{arm.before:.1%}",
            f"{arm.after:.1%}",
            f"{100 * (arm.after - arm.before):+.1f} points",
            f"{arm.student_tokens:,}",
            f"{arm.teacher_tokens:,}",
            f"{arm.seconds:.0f}",
        )
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return f"<table><tr>{''.join(f'<th>{name}</th>' for name in head)}</tr>{''.join(rows)}</table>"


def _meaning(run: ArmRun) -> str:
    spec = run.spec
    return (
        f"<dt><strong>{html.escape(run.arm.name)}</strong> (lr {spec.optim.lr:g}, {spec.optim.steps} steps of "
        f"{spec.rollout.prompts_per_step} prompts, seed {spec.seed}, run <code>{html.escape(run.run_id)}</code>)</dt>"
        f"<dd>{html.escape(MEANING[run.arm.name])}</dd>"
    )


def _figure(name: str, label: str, title: str, runs: Sequence[ArmRun]) -> str:
    """One plot as inline SVG; text stays text, ids are fixed so that equal runs give equal files."""
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif", "font.size": 10}):
        figure = Figure(figsize=(5.4, 3.1), layout="constrained")
        axes = figure.add_subplot()
        for run in runs:
            steps, values = series(run.metrics, name)
            if steps:
                marker = "o" if name == "accuracy" else None
                axes.plot(steps, values, color=COLOURS[run.arm.name], label=run.arm.name, marker=marker, markersize=4)
        axes.set(xlabel="optimiser step", ylabel=label)
        axes.set_title(title, fontsize=11)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e5e5e5", linewidth=0.8)
        axes.set_axisbelow(True)
        if name in ("accuracy", "reverse_kl"):
            axes.set_ylim(bottom=0)
        axes.legend(frameon=False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    return f'<figure role="img" aria-label="{html.escape(title)}">{svg[svg.index("<svg") :]}</figure>'


def series(rows: Sequence[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """Steps and values where the metric was measured."""
    measured = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    return [step for step, _ in measured], [value for _, value in measured]
