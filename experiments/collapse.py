"""Where on-policy training fails on the horizon stage: scenarios that are kept, and one cause that is tried.

The suspicion: walks that never stop are longer than good ones, so their tokens outnumber the others in a loss that
counts tokens, and the student learns more and more on states from which it hardly ever returns. If that is so, a lower
limit of tokens a walk, which takes these tokens away and leaves all else as it is, must prevent it.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from experiments.comparison import Planned, made_from, outcomes, write_result
from tutelage.standalone.stages import HORIZON
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.wire import RunView

LR = 1e-3  # the middle of the stage's grid; forward KL collapses at every rate of it
SEEDS = (7, 8, 9)
CASES = [("opd", 64), ("opd_small", 64), ("opd_forward_kl", 64), ("opd_forward_kl", 32)]
CURVES = ("length", "truncated", "student_entropy")
EVERY = 10
COLOURS = ("#0072B2", "#56B4E9", "#D55E00", "#009E73")


async def collapse(out: Path) -> None:
    """Run every case with every seed; write `out`, the page and the plot beside it."""
    planned = [
        Planned(HORIZON, arm, {"lr": LR, "max_new_tokens": limit}, seed, "eval.jsonl")
        for seed in SEEDS
        for arm, limit in CASES
    ]
    runs = await outcomes(planned, curves)
    result = {
        "name": "collapse",
        "command": f"python -m experiments collapse --json {out}",
        "seeds": list(SEEDS),
        **made_from(runs),
        "runs": [asdict(o) for o in runs],
    }
    write_result(out, result, page(result))
    plot(result, out.with_suffix(".svg"))


async def curves(client: CoordinatorClient, run: RunView) -> dict[str, float]:
    """What the student's own walks were like, every few steps: `length/10` is their mean length at step 10."""
    rows = [row for row in await client.metrics(run.id) if row["step"] % EVERY == 0]
    return {f"{name}/{row['step']}": row[name] for row in rows for name in CURVES if row.get(name) is not None}


def case(result: dict[str, Any], arm: str, limit: int) -> list[dict[str, Any]]:
    return [run for run in result["runs"] if run["arm"] == arm and run["setting"]["max_new_tokens"] == limit]


def curve(run: dict[str, Any], name: str) -> tuple[list[int], list[float]]:
    """Steps and values."""
    points = [(int(key.split("/")[1]), value) for key, value in run["measured"].items() if key.startswith(f"{name}/")]
    steps, values = zip(*sorted(points), strict=True)
    return list(steps), list(values)


def ends(runs: Sequence[dict[str, Any]], name: str) -> float:
    return statistics.mean(curve(run, name)[1][-1] for run in runs)


def table(result: dict[str, Any]) -> list[str]:
    lines = [
        "| arm | tokens a walk | success before | after | steps | walks cut at the end | length | entropy, nats |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for arm, limit in CASES:
        runs = case(result, arm, limit)
        after = [run["after"] for run in runs]
        success = f"{statistics.mean(after):.1%} ({min(after):.1%} to {max(after):.1%})"
        steps = "/".join(str(run["steps"]) for run in runs)
        figures = f"{ends(runs, 'truncated'):.0%} | {ends(runs, 'length'):.1f} | {ends(runs, 'student_entropy'):.2f}"
        lines.append(f"| {arm} | {limit} | {runs[0]['before']:.1%} | {success} | {steps} | {figures} |")
    return lines


def verdict(result: dict[str, Any]) -> str:
    """Whether the lower limit prevented it: a collapsed student reaches fewer targets than before."""
    long, short = (case(result, "opd_forward_kl", limit) for limit in (64, 32))
    fell, held = (sum(run["after"] < run["before"] for run in runs) for runs in (long, short))
    seen = f"With 64 tokens a walk {fell} of {len(long)} students ended below their start, with 32 {held}."
    if fell == len(long) and held == 0:
        return f"{seen} So the tokens of walks that do not stop are what the collapse needs."
    if held:
        return f"{seen} So the limit does not prevent it: the suspected cause is not, or not alone, the right one."
    return f"{seen} It did not collapse in every seed, so these runs decide nothing."


def course(result: dict[str, Any]) -> str:
    """When walks were longest, and what came after."""
    runs = case(result, "opd_forward_kl", 64)
    curves = [curve(run, "length") for run in runs]
    peaks = [steps[lengths.index(max(lengths))] for steps, lengths in curves]
    highest = statistics.mean(max(lengths) for _, lengths in curves)
    cut = statistics.mean(max(curve(run, "truncated")[1]) for run in runs)
    return (
        f"Walks were longest at step {'/'.join(map(str, peaks))}: {highest:.0f} moves in the mean, {cut:.0%} of them "
        f"cut at the limit. Then they shorten again to {ends(runs, 'length'):.0f}: the student is on its way back when "
        "the budget, spent on long walks, ends the run."
    )


def small(result: dict[str, Any]) -> str:
    """Whether the small student collapses too, under reverse KL."""
    runs = case(result, "opd_small", 64)
    fell = sum(run["after"] < run["before"] for run in runs)
    return f"Of the small students {fell} of {len(runs)} ended below their start."


def page(result: dict[str, Any]) -> str:
    """The result as a page of the docs."""
    lines = [
        "# Where on-policy training fails: walks that do not stop",
        "",
        f"Made by `{result['command']}` at commit {result['commit']} on {result['device']}. The horizon stage's specs",
        f"`opd_forward_kl`, `opd`, and `opd_small` with a student of a third of the size, at learning rate {LR:g},",
        f"seeds {', '.join(map(str, result['seeds']))}. {small(result)}",
        "",
        *table(result),
        "",
        "![Length, cut walks and entropy by step](collapse.svg)",
        "",
        "## What happens",
        "",
        "Under forward KL on its own walks the",
        "student flattens to nearly the same probability for each of the four moves (ln 4 is 1.39 nats) and forgets",
        f"to stop. {course(result)}",
        "",
        "Suspected: walks that never stop are longer than good ones, so that their tokens outnumber the others in a",
        "loss that counts tokens. If that is so, a lower limit of tokens a walk must prevent it; the longest target",
        f"needs 23. {verdict(result)}",
        "",
        "What shows it in a run's metrics, long before success is measured again: `length` and `truncated` rise",
        "together with `student_entropy`.",
    ]
    return "\n".join(lines) + "\n"


def plot(result: dict[str, Any], path: Path) -> None:
    """One panel a curve, one line a seed."""
    figure = Figure(figsize=(9.6, 3.0), layout="constrained")
    panels = figure.subplots(1, len(CURVES))
    for axes, name in zip(panels, CURVES, strict=True):
        for (arm, limit), colour in zip(CASES, COLOURS, strict=True):
            for run in case(result, arm, limit):
                label = f"{arm}, {limit} tokens" if run["seed"] == result["seeds"][0] else None
                axes.plot(*curve(run, name), color=colour, linewidth=1.2, label=label)
        axes.set(xlabel="step", title=name)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *panels[0].get_legend_handles_labels(), frameon=False, fontsize=9, loc="outside lower center", ncols=4
    )
    figure.savefig(path, format="svg", metadata={"Date": None})
