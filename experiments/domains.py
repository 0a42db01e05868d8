"""Two teachers on one student: does each domain keep what a run with its own teacher alone would have gained?

Three seeds of four arms from one cold start: one run for each domain, and two for both, whose lines are routed by tag.
All take as many prompts of a domain, on average, so the teachers' tokens of a domain are about equal; they are counted
and published. `both` takes them in as many steps as a domain's own run, each twice as large; `both_long` in twice the
steps, each as large. All but the last are also run three and twelve times as long. Nothing is tuned: all arms take the
learning rate that examples/skill was tuned to.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from experiments.comparison import Outcome, Planned, Setting, made_from, outcomes, write_result
from tutelage.standalone.stages import Stage
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.errors import InvalidInput
from tutelage_client.wire import RunView

MADE = Path("build/domains")
TEACHERS = {"sum": "adder", "column": "columns"}
SEEDS = (7, 8, 9)
CLAIMED = 0.9  # of its own run's gain a domain keeps in a run for both
SHARED = {"both": "as many steps, twice as large", "both_long": "twice the steps, as large"}
ARMS = (*TEACHERS, *SHARED)
# By the steps of a domain's own run: what is set beside the specs, and the arms.
LENGTHS = {
    40: ({}, ARMS),
    120: ({"steps": 120}, (*TEACHERS, "both")),
    480: ({"steps": 480}, (*TEACHERS, "both")),
}
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
    held_out = str((MADE / "eval.jsonl").resolve())
    planned = [
        Planned(STAGE, arm, setting, seed, held_out)
        for setting, arms in LENGTHS.values()
        for seed in SEEDS
        for arm in arms
    ]
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
        "lengths": {
            str(steps): {domain: kept(of_length(runs, setting), domain, arms) for domain in TEACHERS}
            for steps, (setting, arms) in LENGTHS.items()
        },
        "runs": [asdict(run) for run in runs],
    }


def of_length(runs: Sequence[Outcome], setting: Setting) -> list[Outcome]:
    return [run for run in runs if run.setting == setting]


def kept(runs: Sequence[Outcome], domain: str, arms: Sequence[str]) -> dict[str, Any]:
    """One domain over the seeds: accuracy before, gain of its own run and of each run for both, and the share kept.

    There is no share where its own run gained nothing.
    """
    single = gained(runs, domain, domain)
    shared = {arm: gained(runs, arm, domain) for arm in arms if arm in SHARED}
    for own in shared.values():
        own["kept"] = own["gain"] / single["gain"] if single["gain"] > 0 else None
    before = next(run.by_tag[domain][0] for run in runs if run.arm == domain)
    (other,) = TEACHERS.keys() - {domain}
    return {
        "before": before,
        "single": single,
        "shared": shared,
        "elsewhere": statistics.mean(gains(runs, domain, other)),
    }


def gained(runs: Sequence[Outcome], arm: str, domain: str) -> dict[str, Any]:
    """What the runs of an arm gained in a domain, in the order of the seeds, and what its teacher computed for them."""
    own = gains(runs, arm, domain)
    tokens = statistics.mean(run.measured[f"teacher_tokens/{TEACHERS[domain]}"] for run in runs if run.arm == arm)
    return {"gains": own, "gain": statistics.mean(own), "teacher_tokens": round(tokens)}


def gains(runs: Sequence[Outcome], arm: str, domain: str) -> list[float]:
    """What each run of an arm gained in a domain."""
    return [after - before for before, after in (run.by_tag[domain] for run in runs if run.arm == arm)]


def page(result: dict[str, Any]) -> str:
    """The result as a page of the docs."""
    lines = [
        "# Two teachers, one student",
        "",
        f"Made by `{result['command']}` at commit {result['commit']} on {result['device']}, with the models of",
        "`python examples/domains/make_models.py --out build/domains`. Metric: share of right answers on held-out",
        "problems, sampled at temperature 1, two samples each. `sum` is column addition with carries, `column` adds",
        "digit by digit without; each has a teacher of its own. The runs for both route their lines by tag, and take",
        "on average as many prompts of each domain as the domain's own run. Mean of seeds",
        f"{', '.join(map(str, result['seeds']))}; each seed's gain in brackets. One learning rate, nothing tuned.",
        "The runs of one length begin with the same models; models that are made anew on another kind of processor are",
        "not the same bits, which `before` shows where it differs.",
        "",
        "| steps alone | domain | before | run | gain | kept | teacher tokens |",
        "|---|---|---|---|---|---|---|",
        *(
            line
            for steps, domains in result["lengths"].items()
            for name, domain in domains.items()
            for line in _rows(f"| {steps} | {name} | {domain['before']:.1%} |", domain)
        ),
        "",
        *(f"`{arm}` is one run for both domains: {how}." for arm, how in SHARED.items()),
        "",
        f"Claim: in one run with two teachers each domain keeps at least {100 * CLAIMED:.0f} % of the gain of its own",
        "single-teacher run.",
        "On the means of these seeds:",
        "",
        *(_verdict(steps, arm, domains) for steps, domains in result["lengths"].items() for arm in _shared(domains)),
        "",
        "A run alone may forget the other domain, a run for both may not. What the runs alone gained in the domain",
        "that they were not asked about:",
        "",
        *(
            f"- {steps} steps, `{name}` alone: {100 * domain['elsewhere']:+.1f} points elsewhere."
            for steps, domains in result["lengths"].items()
            for name, domain in domains.items()
        ),
    ]
    return "\n".join(lines + _why(result)) + "\n"


def _why(result: dict[str, Any]) -> list[str]:
    """What the figures say of the cause, where a domain keeps less than the claim has it."""
    shares = {
        steps: [domain["shared"]["both"]["kept"] for domain in domains.values()]
        for steps, domains in result["lengths"].items()
    }
    if all(share is not None and share >= CLAIMED for own in shares.values() for share in own):
        return []
    means = (f"{statistics.mean(share or 0.0 for share in own):.0%} ({steps} steps)" for steps, own in shares.items())
    return [
        "",
        "## Why not",
        "",
        "It is not the routing: each domain's teacher marks as many tokens for both as alone. A run alone pays for its",
        "gain with the other domain, which the student (two layers, 64 dimensions) gives up; one for both holds both,",
        "and learns more in all. Points gained in both domains together:",
        "",
        *(_together(steps, domains) for steps, domains in result["lengths"].items()),
        "",
        f"The share kept, mean of the domains: {', '.join(means)}.",
        "Where it does not grow with the steps, more of them are no remedy. Whether a larger student keeps more was",
        "not tried.",
    ]


def _together(steps: str, domains: dict[str, Any]) -> str:
    """What was gained in both domains together, by each of the runs."""
    both = sum(domain["shared"]["both"]["gain"] for domain in domains.values())
    totals = {name: domain["single"]["gain"] + domain["elsewhere"] for name, domain in domains.items()}
    alone = ", ".join(f"`{name}` alone {100 * total:+.1f}" for name, total in totals.items())
    return f"- {steps} steps: `both` {100 * both:+.1f}, {alone}."


def _shared(domains: dict[str, Any]) -> list[str]:
    """The arms for both that were run."""
    return [arm for arm in SHARED if all(arm in domain["shared"] for domain in domains.values())]


def _verdict(steps: str, arm: str, domains: dict[str, Any]) -> str:
    shares = [domain["shared"][arm]["kept"] for domain in domains.values()]
    holds = all(share is not None and share >= CLAIMED for share in shares)
    return f"- {steps} steps, `{arm}`: {'it holds' if holds else 'it does not hold'}."


def _rows(start: str, domain: dict[str, Any]) -> list[str]:
    """Of one domain: its own run, then those for both."""
    rows = [f"{start} alone | {_gains(domain['single'])} | | {domain['single']['teacher_tokens']:,} |"]
    for arm, own in domain["shared"].items():
        share = "nothing to keep" if own["kept"] is None else f"{own['kept']:.0%}"
        rows.append(f"{start} {arm} | {_gains(own)} | {share} | {own['teacher_tokens']:,} |")
    return rows


def _gains(own: dict[str, Any]) -> str:
    return f"{own['gain']:+.1%} ({', '.join(f'{gain:+.1%}' for gain in own['gains'])})"
