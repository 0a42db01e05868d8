"""The demo's stage `skill`, properly: every arm tuned on the same grid, three seeds on problems nobody tuned on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.comparison import Comparison, compare, tuning_table, worded, write_result
from tutelage.standalone.stages import SKILL

RATES = (3e-4, 1e-3, 3e-3)
# The control may penalise every token, or only those that the student itself finds unlikely.
SHARES = (1.0, 0.1)
GRID = {
    "opd": [{"lr": lr} for lr in RATES],
    "sft": [{"lr": lr} for lr in RATES],
    "control": [{"lr": lr, "max_probability": share} for lr in RATES for share in SHARES],
}
SEEDS = (7, 8, 9)


async def demo(out: Path) -> None:
    """Tune, then measure; write `out` and the page beside it."""
    comparison = Comparison(stage=SKILL, arms=GRID, seeds=SEEDS)
    result = await compare(comparison, f"python -m experiments demo --json {out}")
    write_result(out, result, page(result))


def table(result: dict[str, Any]) -> list[str]:
    """The arms as lines of Markdown; the README carries them too."""
    lines = ["| arm | setting | before | after | teacher tokens |", "|---|---|---|---|---|"]
    for arm, s in result["arms"].items():
        spread = f"{s['after']:.1%} ({s['lowest']:.1%} to {s['highest']:.1%})"
        lines.append(f"| {arm} | {worded(s['setting'])} | {s['before']:.1%} | {spread} | {s['teacher_tokens']:,} |")
    return lines


def page(result: dict[str, Any]) -> str:
    """The result as a page of the docs."""
    lines = [
        "# Demo: stage `skill`",
        "",
        f"Made by `{result['command']}` at commit {result['commit']} on {result['device']}. Metric: share of right",
        "answers, sampled at temperature 1, two samples a problem, on problems that were neither trained nor tuned on.",
        f"Mean of seeds {', '.join(map(str, result['seeds']))}; lowest and highest in brackets.",
        "",
        *table(result),
        "",
        "## What was tuned",
        "",
        f"Every arm on the same learning rates, once each, seed {result['tuning']['seed']}, on problems apart",
        f"(`{result['tuning']['on']}`); the control also on which tokens it penalises: all, or those to which the",
        "student itself gave at most `max_probability`. The best of each arm went into the specs and into the table",
        "above.",
        "",
        *tuning_table(result),
    ]
    return "\n".join(lines) + "\n"
