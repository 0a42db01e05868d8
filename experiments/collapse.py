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
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from experiments.comparison import Planned, made_from, outcomes, write_result
from tutelage.standalone.stages import HORIZON
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.wire import RunView

SEEDS = (7, 8, 9)


class Case(NamedTuple):
    """An arm with a learning rate of the stage's grid and a limit of tokens a walk."""

    arm: str
    lr: float
    limit: int

    @property
    def title(self) -> str:
        return f"{self.arm}, {self.lr:g}, {self.limit} tokens"


# Forward KL collapses at every rate of the grid, reverse KL with a small student and far targets at its upper end.
FORWARD, SHORTER = Case("opd_forward_kl", 1e-3, 64), Case("opd_forward_kl", 1e-3, 32)
SMALL_FAR = Case("opd_small_far", 3e-3, 64)
CASES = (
    Case("opd", 1e-3, 64),
    Case("opd_small", 1e-3, 64),
    Case("opd_small", 3e-3, 64),
    Case("opd_small_far", 1e-3, 64),
    SMALL_FAR,
    FORWARD,
    SHORTER,
)
CURVES = ("length", "truncated", "student_entropy")
EVERY = 10
COLOURS = ("#0072B2", "#56B4E9", "#999999", "#E69F00", "#CC79A7", "#D55E00", "#009E73")


async def collapse(out: Path) -> None:
    """Run every case with every seed; write `out`, the page and the plot beside it."""
    planned = [
        Planned(HORIZON, case.arm, {"lr": case.lr, "max_new_tokens": case.limit}, seed, "eval.jsonl")
        for seed in SEEDS
        for case in CASES
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


def runs_of(result: dict[str, Any], case: Case) -> list[dict[str, Any]]:
    settings = {"lr": case.lr, "max_new_tokens": case.limit}
    return [run for run in result["runs"] if run["arm"] == case.arm and run["setting"] == settings]


def fell(runs: Sequence[dict[str, Any]]) -> str:
    """How many of them ended below their start."""
    return f"{sum(run['after'] < run['before'] for run in runs)} of {len(runs)}"


def curve(run: dict[str, Any], name: str) -> tuple[list[int], list[float]]:
    """Steps and values."""
    points = [(int(key.split("/")[1]), value) for key, value in run["measured"].items() if key.startswith(f"{name}/")]
    steps, values = zip(*sorted(points), strict=True)
    return list(steps), list(values)


def ends(runs: Sequence[dict[str, Any]], name: str) -> float:
    return statistics.mean(curve(run, name)[1][-1] for run in runs)


def table(result: dict[str, Any]) -> list[str]:
    lines = [
        "| arm | learning rate | tokens a walk | success before | after | steps | cut, at most | cut at the end "
        "| entropy at the end, nats |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for case in CASES:
        runs = runs_of(result, case)
        after = [run["after"] for run in runs]
        success = f"{statistics.mean(after):.1%} ({min(after):.1%} to {max(after):.1%})"
        steps = "/".join(str(run["steps"]) for run in runs)
        most = statistics.mean(max(curve(run, "truncated")[1]) for run in runs)
        figures = f"{most:.0%} | {ends(runs, 'truncated'):.0%} | {ends(runs, 'student_entropy'):.2f}"
        start = statistics.mean(run["before"] for run in runs)
        before = f"{case.arm} | {case.lr:g} | {case.limit} | {start:.1%}"
        lines.append(f"| {before} | {success} | {steps} | {figures} |")
    return lines


def shorter_walks(result: dict[str, Any]) -> str:
    """Whether the lower limit prevented it: a collapsed student reaches fewer targets than before."""
    long, short = runs_of(result, FORWARD), runs_of(result, SHORTER)
    seen = f"With {FORWARD.limit} tokens a walk {fell(long)} students ended below their start, with {SHORTER.limit} "
    seen += f"{fell(short)}."
    if any(run["after"] < run["before"] for run in short):
        return f"{seen} So the limit does not prevent it: the suspected cause is not, or not alone, the right one."
    return f"{seen} So the tokens of walks that do not stop are what the collapse needs."


def course(runs: Sequence[dict[str, Any]]) -> str:
    """When walks were longest, and what came after."""
    curves = [curve(run, "length") for run in runs]
    peaks = [steps[lengths.index(max(lengths))] for steps, lengths in curves]
    highest = statistics.mean(max(lengths) for _, lengths in curves)
    cut = statistics.mean(max(curve(run, "truncated")[1]) for run in runs)
    return (
        f"Walks were longest at step {'/'.join(map(str, peaks))}: {highest:.0f} moves in the mean, {cut:.0%} of them "
        f"cut at the limit. When the budget, spent on long walks, ended the run, they had {ends(runs, 'length'):.0f}."
    )


def page(result: dict[str, Any]) -> str:
    """The result as a page of the docs."""
    fast, far = runs_of(result, Case("opd_small", 3e-3, 64)), runs_of(result, SMALL_FAR)
    slow = runs_of(result, Case("opd_small_far", 1e-3, 64))
    lines = [
        "# Where on-policy training fails: walks that do not stop",
        "",
        f"Made by `{result['command']}` at commit {result['commit']} on {result['device']}.",
        f"Specs of the horizon stage, seeds {', '.join(map(str, result['seeds']))}. `opd_small` has a student of a",
        "third of the size; `opd_small_far` trains it on targets up to 22 moves away in place of 16. All but",
        "`opd_forward_kl` learn reverse KL.",
        "",
        *table(result),
        "",
        "![Length, cut walks and entropy by step](collapse.svg)",
        "",
        "## Reverse KL",
        "",
        f"Below their start ended {fell(far)} small students on far targets at the upper end of the grid of learning",
        f"rates, {fell(slow)} at its middle, and {fell(fast)} at the upper end on the targets of the stage.",
        course(far),
        "",
        "## Forward KL",
        "",
        "Under forward KL on its own walks the student flattens to nearly the same probability for each of the four",
        f"moves (ln 4 is 1.39 nats) and forgets to stop. {course(runs_of(result, FORWARD))}",
        "",
        "Suspected: walks that never stop are longer than good ones, so that their tokens outnumber the others in a",
        "loss that counts tokens. If that is so, a lower limit of tokens a walk must prevent it; the longest target",
        f"needs 23. {shorter_walks(result)}",
        "",
        "What shows it in a run's metrics, long before success is measured again: `length` and `truncated` rise",
        "together with `student_entropy`.",
    ]
    return "\n".join(lines) + "\n"


def plot(result: dict[str, Any], path: Path) -> None:
    """One panel a curve, one line a seed."""
    figure = Figure(figsize=(9.6, 3.5), layout="constrained")
    panels = figure.subplots(1, len(CURVES))
    for axes, name in zip(panels, CURVES, strict=True):
        for case, colour in zip(CASES, COLOURS, strict=True):
            for run in runs_of(result, case):
                label = case.title if run["seed"] == result["seeds"][0] else None
                axes.plot(*curve(run, name), color=colour, linewidth=1.2, label=label)
        axes.set(xlabel="step", title=name)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *panels[0].get_legend_handles_labels(), frameon=False, fontsize=9, loc="outside lower center", ncols=3
    )
    figure.savefig(path, format="svg", metadata={"Date": None})
