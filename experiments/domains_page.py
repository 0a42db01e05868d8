"""The page of a result with two teachers: what each domain gained alone and beside the other."""

from __future__ import annotations

import statistics
from typing import Any

SHARED = {"both": "as many steps, twice as large", "both_long": "twice the steps, as large"}
CLAIMED = 0.9  # of its own run's gain a domain keeps in a run for both


def page(result: dict[str, Any]) -> str:
    """The result as a page of the docs."""
    arms = {run["arm"] for run in result["runs"]}
    lines = [
        f"# Two teachers, one student of {result['student']}",
        "",
        f"Made by `{result['command']}` at commit {result['commit']} on {result['device']}, with the models of",
        "`python examples/domains/make_models.py --out build/domains`. Metric: share of right answers on held-out",
        "problems, sampled at temperature 1, two samples each. `sum` is column addition with carries, `column` adds",
        "digit by digit without; each has a teacher of its own. The runs for both route their lines by tag, and take",
        "on average as many prompts of each domain as the domain's own run. Mean of seeds",
        f"{', '.join(map(str, result['seeds']))}; each seed's gain in brackets. {result['rate']};",
        "nothing else was tuned.",
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
        *(f"`{arm}` is one run for both domains: {how}." for arm, how in SHARED.items() if arm in arms),
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
        f"gain with the other domain, which the student ({result['student']}) gives up; one for both holds both,",
        "and learns more in all. Points gained in both domains together:",
        "",
        *(_together(steps, domains) for steps, domains in result["lengths"].items()),
        "",
        f"The share kept, mean of the domains: {', '.join(means)}.",
        *(["Where it does not grow with the steps, more of them are no remedy."] if len(shares) > 1 else []),
        f"A student of another size is told of in [its own result]({result['beside']}.md).",
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
    """On the means, and how often by the gains of one seed alone."""
    shares = [domain["shared"][arm]["kept"] for domain in domains.values()]
    holds = all(share is not None and share >= CLAIMED for share in shares)
    pairs = [zip(domain["single"]["gains"], domain["shared"][arm]["gains"], strict=True) for domain in domains.values()]
    seeds = [all(own > 0 and both >= CLAIMED * own for own, both in seed) for seed in zip(*pairs, strict=True)]
    alone = f"Seed by seed it does in {sum(seeds)} of {len(seeds)}."
    return f"- {steps} steps, `{arm}`: {'it holds' if holds else 'it does not hold'}. {alone}"


def _rows(start: str, domain: dict[str, Any]) -> list[str]:
    """Of one domain: its own run, then those for both."""
    rows = [f"{start} alone | {_gains(domain['single'])} | | {domain['single']['teacher_tokens']:,} |"]
    for arm, own in domain["shared"].items():
        share = "nothing to keep" if own["kept"] is None else f"{own['kept']:.0%}"
        rows.append(f"{start} {arm} | {_gains(own)} | {share} | {own['teacher_tokens']:,} |")
    return rows


def _gains(own: dict[str, Any]) -> str:
    return f"{own['gain']:+.1%} ({', '.join(f'{gain:+.1%}' for gain in own['gains'])})"
