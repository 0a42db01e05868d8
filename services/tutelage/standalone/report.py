"""The demo's report: one HTML file that stands alone, with the tables, the plots and what they mean."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tutelage.standalone import texts
from tutelage.standalone.plots import COLOURS, curves, success_by_tag

if TYPE_CHECKING:
    from tutelage.standalone.arms import ArmRun, StageRuns

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --line: #d0d7de; --page: #ffffff; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9da7b3; --line: #30363d; --page: #0d1117; } }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--page); margin: 0 auto;
       max-width: 62rem; padding: 2.5rem 1.5rem; }
h1 { font-size: 1.7rem; margin: 2.5rem 0 .3rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
p { max-width: 44rem; } .lead { color: var(--soft); margin-top: 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .45rem .7rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { text-align: left; } th { color: var(--soft); font-weight: 500; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(24rem, 1fr)); gap: 1rem; }
figure { margin: 0; background: #fff; border: 1px solid var(--line); border-radius: 6px; padding: .5rem; }
.wide { margin: 1.2rem 0; } figure svg { width: 100%; height: auto; display: block; }
code { font-size: .92em; } footer { margin-top: 2.5rem; color: var(--soft); font-size: .9rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .5rem; } table { display: block; overflow-x: auto; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: .8rem; }
.card { border: 1px solid var(--line); border-radius: 6px; padding: .6rem .8rem; font-size: .92rem; }
.card p { margin: .3rem 0 0; white-space: pre-wrap; overflow-wrap: anywhere; }
.swatch { display: inline-block; width: .7rem; height: .7rem; border-radius: 2px; margin-right: .5rem; }
"""
MEANING = {
    "opd": "The student writes, the teacher marks every token, the student learns from the marks (reverse KL).",
    "sft": "The teacher writes, the student learns to write the same (continued supervised fine-tuning).",
    "token_kd": "The teacher writes and marks every token, the student learns from the marks (forward KL).",
    "control": "The student writes and is penalised for it by a constant. No teacher: what a run alone does.",
}
METRICS = {
    "accuracy": "Measured: the share of right answers on held-out prompts.",
    "reverse_kl": "Measured: reverse KL to the teacher, nats per token, on the student's own text to held-out prompts.",
}


def write_report(path: Path, done: Sequence[StageRuns]) -> None:
    """Write the report of these stages."""
    body = f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Tutelage demo</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>
<p class="lead">Tutelage demo. Every arm was a run of its own, submitted over HTTP to the same services that a cluster
runs, starting from the same cold-started student.</p>
{"".join(_section(stage) for stage in done)}
<footer>Made by <code>make demo</code>. Figures as data: <code>result.json</code>.</footer></body></html>
"""
    path.write_text(body)


def _section(done: StageRuns) -> str:
    """One stage: what was tried, what came of it, how it went."""
    stage, runs = done.stage, done.runs
    by_tag = f'<div class="wide">{success_by_tag(runs, stage.tag)}</div>' if stage.tag else ""
    shown = (lambda value: f"{value:.1%}") if stage.metric == "accuracy" else (lambda value: f"{value:.2f}")
    ends = ", ".join(f"<code>{html.escape(run.arm.name)}</code> at {shown(run.arm.after)}" for run in runs)
    return f"""<section><h1>{stage.title}</h1>
<p class="lead">Stage <code>{stage.name}</code>. {stage.task}</p>
<p>{METRICS[stage.metric]} The student began at {shown(runs[0].arm.before)}; the arms ended with {ends}.</p>
{_table(runs) if stage.metric == "accuracy" else _figures(done)}{by_tag}<p>{stage.reading}</p>
<h2>On the way</h2><div class="plots">{"".join(curves(runs))}</div>
{_examples(done) if done.examples else ""}
<h2>The arms</h2><dl>{"".join(_meaning(run) for run in runs)}</dl></section>"""


def _table(runs: Sequence[ArmRun]) -> str:
    head = ("arm", "before", "after", "change", "student tokens", "teacher tokens", "seconds")
    rows = []
    for run in runs:
        arm = run.arm
        cells = (
            _swatch(arm.name) + html.escape(arm.name),
            f"{arm.before:.1%}",
            f"{arm.after:.1%}",
            f"{100 * (arm.after - arm.before):+.1f} points",
            f"{arm.student_tokens:,}",
            f"{arm.teacher_tokens:,}",
            f"{arm.seconds:.0f}",
        )
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    table = f"<table><tr>{''.join(f'<th>{name}</th>' for name in head)}</tr>{''.join(rows)}</table>"
    return f"{table}<p>The arms ran at once and shared the cores: their seconds compare nothing.</p>"


def _figures(done: StageRuns) -> str:
    """Every figure of the student before, of each arm and of the teacher's own text."""
    header, *lines = texts.rows(done)
    head = "".join(f"<th>{_swatch(name)}{html.escape(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>" for line in lines)
    return f"<table><tr>{head}</tr>{body}</table>"


def _examples(done: StageRuns) -> str:
    """What was written to the first held-out prompts, before and after, side by side."""
    parts = []
    for i, example in enumerate(done.examples):
        written = {"before": example.before} | {run.arm.name: run.texts[i] for run in done.runs}
        cards = "".join(_card(name, text) for name, text in (written | {"teacher": example.teacher}).items())
        parts.append(f'<h3>{html.escape(example.prompt)}</h3><div class="cards">{cards}</div>')
    return (
        f"<h2>What they write</h2><p>Temperature 1, the same draws for all, cut at a fixed length.</p>{''.join(parts)}"
    )


def _card(name: str, text: str) -> str:
    return f'<div class="card"><strong>{_swatch(name)}{html.escape(name)}</strong><p>{html.escape(text)}</p></div>'


def _swatch(name: str) -> str:
    return f'<span class="swatch" style="background:{COLOURS[name]}"></span>' if name in COLOURS else ""


def _meaning(run: ArmRun) -> str:
    spec = run.spec
    steps = run.metrics[-1]["step"]
    return (
        f"<dt><strong>{html.escape(run.arm.name)}</strong> (lr {spec.optim.lr:g}, {steps} steps of "
        f"{spec.rollout.prompts_per_step} prompts, seed {spec.seed}, run <code>{html.escape(run.run_id)}</code>)</dt>"
        f"<dd>{html.escape(MEANING[run.arm.name])}</dd>"
    )
