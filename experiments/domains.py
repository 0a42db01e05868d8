"""Two teachers on one student: does each domain keep what a run with its own teacher alone would have gained?

Three seeds of three arms from one cold start: one run for each domain and one for both, whose lines are routed by tag.
A step of the run for both takes as many prompts of each domain, on average, as a step of the domain's own run, so the
teachers' tokens of a domain are about equal; they are counted and published. Nothing is tuned: all arms take the
learning rate that examples/skill was tuned to.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from experiments.comparison import Outcome, Planned, made_from, outcomes, write_result
from tutelage.standalone.stages import Stage
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.errors import InvalidInput
from tutelage_client.wire import RunView

MADE = Path("build/domains")
TEACHERS = {"sum": "adder", "column": "columns"}
SEEDS = (7, 8, 9)
ARMS = (*TEACHERS, "both")
STAGE = Stage(
    name="domains",
    title="One student, two teachers",
    task="Sums with carries, and sums of digits without.",
    teacher="adder",
    arms=ARMS,
    reading="",
    tag="domain",
)


async def domains(out: Path) -> None:
    """Run all arms, write `out` and the page beside it.

    Raises:
        InvalidInput: the models have not been made yet.
    """
    if not (MADE / "student").is_dir():
        raise InvalidInput(f"no models in {MADE}; make them with: python examples/domains/make_models.py --out {MADE}")
    planned = [Planned(STAGE, arm, {}, seed, str((MADE / "eval.jsonl").resolve())) for seed in SEEDS for arm in ARMS]
    models = {"adder": Path("examples/skill/teacher"), "columns": MADE / "columns"}
    runs = await outcomes(planned, tokens_of_teachers, models)
    result = result_of(runs, f"python -m experiments domains --json {out}")
    write_result(out, result, page(result))


async def tokens_of_teachers(client: CoordinatorClient, run: RunView) -> dict[str, float]:
    """What each teacher computed for the run."""
    last = (await client.metrics(run.id))[-1]
    alone = {teacher["name"]: run.teacher_tokens for teacher in run.spec["teachers"]}
    return {f"teacher_tokens/{name}": last.get(f"teacher_tokens/{name}", own) for name, own in alone.items()}


def result_of(runs: Sequence[Outcome], command: str) -> dict[str, Any]:
    return {
        "name": STAGE.name,
        "command": command,
        "seeds": sorted({run.seed for run in runs}),
        **made_from(runs),
        "domains": {domain: kept(runs, domain) for domain in TEACHERS},
        "runs": [asdict(run) for run in runs],
    }


def kept(runs: Sequence[Outcome], domain: str) -> dict[str, Any]:
    """One domain over the seeds: accuracy before, gain of its own run and of the run for both, and the share kept.

    There is no share where its own run gained nothing.
    """
    single, both = ([run for run in runs if run.arm == arm] for arm in (domain, "both"))
    gains = {name: [_gain(run, domain) for run in own] for name, own in (("single", single), ("both", both))}
    tokens = f"teacher_tokens/{TEACHERS[domain]}"
    means = {name: statistics.mean(own) for name, own in gains.items()}
    return {
        "before": single[0].by_tag[domain][0],
        "gains": gains,
        "single": means["single"],
        "both": means["both"],
        "kept": means["both"] / means["single"] if means["single"] > 0 else None,
        "single_tokens": round(statistics.mean(run.measured[tokens] for run in single)),
        "both_tokens": round(statistics.mean(run.measured[tokens] for run in both)),
    }


def _gain(run: Outcome, domain: str) -> float:
    before, after = run.by_tag[domain]
    return after - before


def page(result: dict[str, Any]) -> str:
    """The result as a page of the docs."""
    reached = all((domain["kept"] or 0) >= 0.9 for domain in result["domains"].values())
    lines = [
        "# Two teachers, one student",
        "",
        f"Made by `{result['command']}` at commit {result['commit']} on {result['device']}, with the models of",
        "`python examples/domains/make_models.py --out build/domains`. Metric: share of right answers on held-out",
        "problems, sampled at temperature 1, two samples each. `sum` is column addition with carries, `column` adds",
        "digit by digit without; each has a teacher of its own. The run for both routes its lines by tag and takes on",
        "average as many prompts of each domain a step as the domain's own run. Mean of seeds",
        f"{', '.join(map(str, result['seeds']))}; each seed's gain in brackets. One learning rate, nothing tuned.",
        "",
        "| domain | before | gain alone | gain with both | kept | teacher tokens alone | with both |",
        "|---|---|---|---|---|---|---|",
        *(_line(name, domain) for name, domain in result["domains"].items()),
        "",
        "Claim: in one run with two teachers each domain keeps at least 90 % of the gain of its single-teacher run.",
        f"{'It holds here' if reached else 'It does not hold here'}, on the means of these seeds.",
    ]
    return "\n".join(lines) + "\n"


def _line(name: str, domain: dict[str, Any]) -> str:
    gains = [
        f"{domain[arm]:+.1%} ({', '.join(f'{gain:+.1%}' for gain in domain['gains'][arm])})"
        for arm in ("single", "both")
    ]
    share = "nothing to keep" if domain["kept"] is None else f"{domain['kept']:.0%}"
    tokens = f"{domain['single_tokens']:,} | {domain['both_tokens']:,}"
    return f"| {name} | {domain['before']:.1%} | {gains[0]} | {gains[1]} | {share} | {tokens} |"
