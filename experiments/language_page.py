"""The language experiment's result as a page of the docs and as a plot, both made from the result alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from tutelage.standalone.plots import COLOURS
from tutelage.standalone.texts import FIGURES

METRIC = "reverse_kl"


def lowered(result: dict[str, Any], arm: str) -> float:
    """By how much the arm lowered the stage's metric, mean over the seeds."""
    return result["before"][METRIC] - result["arms"][arm]["figures"][METRIC][0]


def verdict(result: dict[str, Any]) -> str:
    """What was expected beforehand, and whether it came so."""
    ratio = lowered(result, "opd") / lowered(result, "token_kd")
    repeats = {arm: result["arms"][arm]["figures"]["repetition"][0] for arm in ("opd", "token_kd")}
    held = ratio >= 1.2 and repeats["opd"] <= repeats["token_kd"]
    return (
        "Expected beforehand: at equal teacher tokens opd lowers reverse KL on the student's own text at least 20 % "
        f"further than token_kd, without repeating itself more. Found: opd lowers it by {lowered(result, 'opd'):.2f} "
        f"nats, token_kd by {lowered(result, 'token_kd'):.2f} ({ratio:.2f} times as far); repeated 4-grams "
        f"{repeats['opd']:.2%} against {repeats['token_kd']:.2%}. The expectation "
        f"{'held' if held else 'did not hold'}. {seed_by_seed(result)}"
    )


def seed_by_seed(result: dict[str, Any]) -> str:
    """How far below token_kd opd ended, in each seed."""
    ended = {(run["arm"], run["seed"]): run["figures"][METRIC] for run in result["runs"]}
    gaps = [f"{ended['token_kd', seed] - ended['opd', seed]:.2f}" for seed in result["seeds"]]
    return f"Seed by seed opd ended {', '.join(gaps)} nats below token_kd."


def at_every_rate(result: dict[str, Any]) -> str:
    """How the two arms compare where nothing was chosen: at each learning rate of the tuning."""
    tried = {(run["arm"], run["lr"]): run["figures"][METRIC] for run in result["tuning"]["runs"]}
    before, rates = result["before"][METRIC], sorted({lr for _, lr in tried})
    pairs = [
        f"{lr:g}: {tried['opd', lr]:.2f} against {tried['token_kd', lr]:.2f}, "
        f"{(before - tried['opd', lr]) / (before - tried['token_kd', lr]):.2f} times as far"
        for lr in rates
    ]
    return (
        f"Where it does: in the tuning runs (half of the budget, one seed) opd against token_kd ended at "
        f"{'; '.join(pairs)}. opd has about twice the steps for the same teacher tokens, since nobody writes for it "
        "first; where little was learned yet that counts most. Why the ratio is no larger: more than half of what each "
        "arm does is the shortened student's English coming back, which text that no teacher wrote brings back too, "
        "and which fills both sides of the ratio ([measured](language_cause.md))."
    )


def table(result: dict[str, Any]) -> list[str]:
    """Every figure of the student before, of each arm and of the teacher, as lines of Markdown."""
    arms, own = result["arms"], result["teacher"]
    lines = [f"| | before | {' | '.join(arms)} | teacher |", "|---" * (len(arms) + 3) + "|"]
    for name, heading, form in FIGURES:
        cells = [spread(s["figures"][name], form) for s in arms.values()]
        first, last = format(result["before"][name], form), format(own[name], form) if name in own else ""
        lines.append(f"| {heading} | {first} | {' | '.join(cells)} | {last} |")
    return lines


def spread(values: Sequence[float], form: str) -> str:
    """Mean with lowest and highest, where there is more than one seed."""
    mean, lowest, highest = (format(value, form) for value in values)
    return mean if values[1] == values[2] else f"{mean} ({lowest} to {highest})"


def over_seeds(seeds: Sequence[int]) -> str:
    if len(seeds) == 1:
        return f"One seed ({seeds[0]}): how far figures spread is not known."
    return f"Mean of seeds {', '.join(map(str, seeds))}; lowest and highest in brackets."


def page(result: dict[str, Any]) -> str:
    """The result as a page of the docs."""
    lines = [
        "# Demo: stage `language`",
        "",
        f"Made by `{result['command']}` on {result['device']}, commit `{result['commit'][:12]}`.",
        "",
        "The teacher is SmolLM2-135M-Instruct; the student is the same model without seven of its thirty layers. Every",
        "arm has the same budget of teacher tokens, forward and generated, and ends at the first step that reaches it.",
        "All KL figures are exact over the whole vocabulary, in nats per token. All but the fourth are of the text",
        "that the student writes to 64 held-out prompts at temperature 1 (the same draws for all), cut at 48 tokens.",
        over_seeds(result["seeds"]),
        "",
        *table(result),
        "",
        "![Reverse KL on the student's own text, by arm and seed](language.svg)",
        "",
        verdict(result),
        "",
        at_every_rate(result),
        "",
        "opd learns reverse KL on the student's own text; token_kd and sft learn from the teacher's text, of which the",
        "fourth figure speaks. At a few thousand teacher tokens all arms mostly relearn which words are likely at all.",
        "",
        "## What it cost",
        "",
        "| arm | learning rate | optimiser steps | teacher tokens | student tokens | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for arm, s in result["arms"].items():
        steps = "/".join(map(str, s["steps"]))
        cost = f"{s['teacher_tokens']:,} | {s['student_tokens']:,} | {s['seconds']}"
        lines.append(f"| {arm} | {s['lr']:g} | {steps} | {cost} |")
    return "\n".join([*lines, "", *tuning_section(result)]) + "\n"


def tuning_section(result: dict[str, Any]) -> list[str]:
    lines = [
        "Two runs at a time shared two cores with each other and with other work: the seconds compare nothing.",
        "",
        "## What was tuned",
        "",
        f"Every arm on the same learning rates, once each, seed {result['tuning']['seed']}, with half of the budget,",
        "measured on prompts apart (`tune.jsonl`). The lowest reverse KL of each arm went into the specs and the",
        "tables above.",
        "",
        "| arm | learning rate | reverse KL | log-prob of teacher text | repeated 4-grams |",
        "|---|---|---|---|---|",
    ]
    for run in result["tuning"]["runs"]:
        f = run["figures"]
        figures = f"{f['reverse_kl']:.3f} | {f['teacher_text_logprob']:.2f} | {f['repetition']:.2%}"
        lines.append(f"| {run['arm']} | {run['lr']:g} | {figures} |")
    return lines + at_the_edge(result)


def at_the_edge(result: dict[str, Any]) -> list[str]:
    """Which arms might have wanted a rate outside the grid."""
    largest = max(run["lr"] for run in result["tuning"]["runs"])
    arms = [arm for arm, s in result["arms"].items() if s["lr"] == largest]
    return ["", f"At the grid's upper edge: {', '.join(arms)}. A larger rate was not tried."] if arms else []


def plot(result: dict[str, Any], path: Path) -> None:
    """The stage's metric of every seed, with the student before as a line."""
    figure = Figure(figsize=(5.4, 3.1), layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(result["before"][METRIC], color="#999999", linestyle=":", label="before")
    for place, arm in enumerate(result["arms"]):
        values = [run["figures"][METRIC] for run in result["runs"] if run["arm"] == arm]
        axes.plot([place] * len(values), values, "o", color=COLOURS[arm], label=arm)
    axes.set_xticks(range(len(result["arms"])), list(result["arms"]))
    axes.set(ylabel="reverse KL, nats per token", ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, format="svg", metadata={"Date": None})
