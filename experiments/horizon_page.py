"""The horizon experiment's result as a page of the docs and as a plot, both made from the result alone."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from experiments.comparison import tuning_table, worded
from tutelage.standalone.plots import COLOURS

# Student's t for the 95 % interval of a mean, by the number of seeds.
T_95 = {3: 4.303, 5: 2.776}
LINES = {"opd_forward_kl": "--", "seqkd": "--"}
OFF_POLICY = ("token_kd", "sft", "seqkd")
LONG, BEYOND = "13-16", "17-22"
PLACES = [(tag, greedy) for tag in (LONG, BEYOND) for greedy in (False, True)]


def by_distance(result: dict[str, Any], arm: str, *, greedy: bool) -> dict[str, list[float]]:
    """Success of every seed after the arm, by tag."""
    runs = [run for run in result["runs"] if run["arm"] == arm]
    return {
        tag: [run["measured"][tag] if greedy else run["by_tag"][tag][1] for run in runs] for tag in runs[0]["by_tag"]
    }


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half of its 95 % interval over the seeds."""
    spread = statistics.stdev(values) * T_95[len(values)] / math.sqrt(len(values))
    return statistics.mean(values), spread


def table(result: dict[str, Any], *, greedy: bool) -> list[str]:
    """Success by distance, as lines of Markdown."""
    tags = list(result["runs"][0]["by_tag"])
    lines = [f"| arm | {' | '.join(tags)} |", "|---" * (len(tags) + 1) + "|"]
    if not greedy:
        first = result["runs"][0]["by_tag"]
        lines.append(f"| before | {' | '.join(f'{first[tag][0]:.0%}' for tag in tags)} |")
    for arm in result["arms"]:
        cells = [interval(values) for values in by_distance(result, arm, greedy=greedy).values()]
        lines.append(f"| {arm} | {' | '.join(f'{mean:.0%} ± {100 * half:.0f}' for mean, half in cells)} |")
    return lines


def short_table(result: dict[str, Any]) -> list[str]:
    """The long end and beyond, for the README."""
    heads = [f"{tag} moves, {how}" for tag in (LONG, BEYOND) for how in ("sampled", "greedy")]
    lines = [f"| arm | teacher tokens | {' | '.join(heads)} |", "|---" * (len(heads) + 2) + "|"]
    for arm, s in result["arms"].items():
        both = [by_distance(result, arm, greedy=greedy) for greedy in (False, True)]
        cells = [interval(success[tag]) for tag in (LONG, BEYOND) for success in both]
        written = " | ".join(f"{mean:.0%} ± {100 * half:.0f}" for mean, half in cells)
        lines.append(f"| {arm} | {s['teacher_tokens']:,} | {written} |")
    return lines


def cost_table(result: dict[str, Any]) -> list[str]:
    """What each arm was given."""
    lines = ["| arm | setting | steps | student tokens | teacher tokens |", "|---|---|---|---|---|"]
    for arm, s in result["arms"].items():
        tokens = f"{s['student_tokens']:,} | {s['teacher_tokens']:,}"
        lines.append(f"| {arm} | {worded(s['setting'])} | {s['steps']:,} | {tokens} |")
    return lines


def ahead(result: dict[str, Any], arm: str, tag: str, *, greedy: bool) -> tuple[float, float]:
    """By how much opd is above the arm, seed by seed: mean and half of its 95 % interval."""
    ours, theirs = (by_distance(result, name, greedy=greedy)[tag] for name in ("opd", arm))
    return interval([a - b for a, b in zip(ours, theirs, strict=True)])


def difference_table(result: dict[str, Any]) -> list[str]:
    """opd against every off-policy arm where it matters, as lines of Markdown, in points."""
    lines = [f"| opd above | {' | '.join(OFF_POLICY)} |", "|---" * (len(OFF_POLICY) + 1) + "|"]
    for tag, greedy in PLACES:
        cells = [ahead(result, arm, tag, greedy=greedy) for arm in OFF_POLICY]
        written = " | ".join(f"{100 * mean:+.1f} ± {100 * half:.1f}" for mean, half in cells)
        lines.append(f"| {place(tag, greedy=greedy)} | {written} |")
    return lines


def place(tag: str, *, greedy: bool) -> str:
    return f"{tag} moves, {'greedy' if greedy else 'sampled'}"


def verdict(result: dict[str, Any]) -> str:
    """What was expected beforehand, and where the seeds can tell that it came so."""
    lowest = {
        (tag, greedy): min(mean - half for mean, half in (ahead(result, arm, tag, greedy=greedy) for arm in OFF_POLICY))
        for tag, greedy in PLACES
    }
    held = [place(tag, greedy=greedy) for (tag, greedy), value in lowest.items() if value > 0]
    return (
        "Expected beforehand: opd above every off-policy arm at the long end of what was trained on and beyond it. "
        f"The seeds tell it above all of them at {' and '.join(held) or 'no place'}, and nowhere else: the "
        "difference, taken seed by seed with its 95 % interval, in points."
    )


def page(result: dict[str, Any]) -> str:
    """The result as a page of the docs."""
    seeds = ", ".join(map(str, result["seeds"]))
    lines = [
        "# Demo: stage `horizon`",
        "",
        f"Made by `{result['command']}` at commit {result['commit']} on {result['device']}. Success: share of",
        "held-out targets at which the walk ends, by their distance in moves; every arm trains on other targets, at",
        f"most 16 moves away. Mean of seeds {seeds} with its 95 % interval (Student's t).",
        "",
        "![Success against distance](horizon.svg)",
        "",
        verdict(result),
        "",
        *difference_table(result),
        "",
        "## Sampled at temperature 1",
        "",
        *table(result, greedy=False),
        "",
        "## The likeliest walk (greedy)",
        "",
        *table(result, greedy=True),
        "",
        "## What each arm was given",
        "",
        "The same budget of teacher tokens, forward and generated ones, for every arm that asks a teacher. An arm that",
        "lets the teacher write its text and mark it pays for both, so a step of it has half as many rollouts. A run",
        "ends before its last step where the budget is spent: the endless walks of `opd_forward_kl` do so half way.",
        "",
        *cost_table(result),
        "",
        "## What was tuned",
        "",
        f"Every arm on the same learning rates, once each, seed {result['tuning']['seed']}, on targets apart",
        f"(`{result['tuning']['on']}`). The best of each arm went into the specs and into the tables above.",
        "",
        *tuning_table(result),
    ]
    return "\n".join(lines) + "\n"


def plot(result: dict[str, Any], path: Path) -> None:
    """Success against distance, sampled and greedy side by side."""
    figure = Figure(figsize=(9.6, 3.8), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, greedy in zip(panels, (False, True), strict=True):
        for arm in result["arms"]:
            success = by_distance(result, arm, greedy=greedy)
            means, halves = zip(*(interval(values) for values in success.values()), strict=True)
            colour = COLOURS[arm]
            axes.errorbar(
                list(success),
                means,
                yerr=halves,
                color=colour,
                linestyle=LINES.get(arm, "-"),
                marker="o",
                markersize=4,
                capsize=2,
                label=arm,
            )
        axes.set_title("the likeliest walk" if greedy else "sampled at temperature 1", fontsize=11)
        axes.set(xlabel="distance of the target in moves", ylim=(0, 1.02))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e5e5e5", linewidth=0.8)
    panels[0].set_ylabel("share of targets reached")
    figure.legend(*panels[0].get_legend_handles_labels(), frameon=False, fontsize=9, loc="outside right center")
    figure.savefig(path, metadata={"Date": None})
