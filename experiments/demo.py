"""The demo's arms, properly: every arm tuned on the same grid, then three seeds on problems that nobody tuned on.

Learning rates are chosen on `tune.jsonl` with a seed of its own; the results are on `eval.jsonl` with other seeds. All
runs go through the real services, as in the demo.
"""

from __future__ import annotations

import asyncio
import json
import platform
import statistics
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from tutelage.standalone.stack import StackOptions, running
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.errors import TutelageError
from tutelage_client.spec import RunSpec, load_spec, parse_spec
from tutelage_client.wire import RunStatus

SKILL = Path("examples/skill")
ARMS = ("opd", "sft", "control")
GRID = (3e-4, 1e-3, 3e-3)
# The control may penalise every token, or only those that the student itself finds unlikely.
CONTROL_GRID = (1.0, 0.1)
TUNING_SEED = 100
SEEDS = (7, 8, 9)
AT_ONCE = 2


@dataclass(frozen=True)
class Outcome:
    """One run: settings that varied, accuracies, tokens."""

    arm: str
    lr: float
    max_probability: float | None
    seed: int
    before: float
    after: float
    student_tokens: int
    teacher_tokens: int


async def demo(out: Path) -> None:
    """Tune, then measure; write `out` and the page beside it."""
    with tempfile.TemporaryDirectory() as folder:
        options = StackOptions(Path(folder), port=0, teachers={"adder": SKILL / "teacher"}, trainers=AT_ONCE)
        async with running(options) as stack, CoordinatorClient(stack.url) as client:
            tuned = await all_runs(client, [spec for arm in ARMS for spec in candidates(arm)])
            best = {arm: max((o for o in tuned if o.arm == arm), key=lambda o: o.after) for arm in ARMS}
            measured = await all_runs(client, [seeded(best[arm], seed) for arm in ARMS for seed in SEEDS])
    result = {
        "name": "demo",
        "command": f"python -m experiments demo --json {out}",
        "device": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "metric": "share of right answers, sampled at temperature 1, two samples a problem",
        "tuning": {"seed": TUNING_SEED, "on": "tune.jsonl", "runs": [asdict(o) for o in tuned]},
        "runs": [asdict(o) for o in measured],
        "arms": {arm: summary([o for o in measured if o.arm == arm]) for arm in ARMS},
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    out.with_suffix(".md").write_text(page(result))
    print(page(result))


def variant(arm: str, lr: float, seed: int, max_probability: float | None, held_out: str) -> RunSpec:
    """The arm's spec with these settings."""
    spec = load_spec(SKILL / f"{arm}.toml").model_dump(mode="json")
    spec["seed"] = seed
    spec["optim"]["lr"] = lr
    spec["data"]["eval"] = str((SKILL / held_out).resolve())
    if max_probability is not None:
        spec["objective"]["max_probability"] = max_probability
    return parse_spec(spec)


def candidates(arm: str) -> list[RunSpec]:
    shares = CONTROL_GRID if arm == "control" else (None,)
    return [variant(arm, lr, TUNING_SEED, share, "tune.jsonl") for lr in GRID for share in shares]


def seeded(best: Outcome, seed: int) -> RunSpec:
    return variant(best.arm, best.lr, seed, best.max_probability, "eval.jsonl")


async def all_runs(client: CoordinatorClient, specs: list[RunSpec]) -> list[Outcome]:
    """Queue all of them; the stack executes as many at once as it has trainers."""
    ids = [(await client.submit(spec)).id for spec in specs]
    return [await outcome(client, run_id, spec) for run_id, spec in zip(ids, specs, strict=True)]


async def outcome(client: CoordinatorClient, run_id: str, spec: RunSpec) -> Outcome:
    while not (run := await client.run(run_id)).status.final:
        await asyncio.sleep(1.0)
    if run.status is not RunStatus.SUCCEEDED:
        raise TutelageError(f"{spec.name} {run.status}: {run.error}")
    accuracies = [row["accuracy"] for row in await client.metrics(run_id) if row.get("accuracy") is not None]
    result = Outcome(
        arm=spec.name,
        lr=spec.optim.lr,
        max_probability=getattr(spec.objective, "max_probability", None),
        seed=spec.seed,
        before=accuracies[0],
        after=accuracies[-1],
        student_tokens=run.student_tokens,
        teacher_tokens=run.teacher_tokens,
    )
    print(f"{result.arm:<8} lr {result.lr:g} seed {result.seed} {result.before:.3f} -> {result.after:.3f}", flush=True)
    return result


def summary(runs: list[Outcome]) -> dict[str, Any]:
    after = [o.after for o in runs]
    return {
        "lr": runs[0].lr,
        "max_probability": runs[0].max_probability,
        "before": statistics.mean(o.before for o in runs),
        "after": statistics.mean(after),
        "lowest": min(after),
        "highest": max(after),
        "teacher_tokens": round(statistics.mean(o.teacher_tokens for o in runs)),
    }


def table(result: dict[str, Any]) -> list[str]:
    """The arms as lines of Markdown; the README carries them too."""
    lines = ["| arm | learning rate | before | after | teacher tokens |", "|---|---|---|---|---|"]
    for arm, s in result["arms"].items():
        spread = f"{s['after']:.1%} ({s['lowest']:.1%} to {s['highest']:.1%})"
        lines.append(f"| {arm} | {s['lr']:g} | {s['before']:.1%} | {spread} | {s['teacher_tokens']:,} |")
    return lines


def page(result: dict[str, Any]) -> str:
    """The result as a page of the docs."""
    lines = [
        "# Demo: stage `skill`",
        "",
        f"Made by `{result['command']}` on {result['device']}. Metric: {result['metric']}, on problems",
        f"that were neither trained nor tuned on. Mean of seeds {', '.join(map(str, SEEDS))};",
        "lowest and highest in brackets.",
        "",
        *table(result),
        "",
        "## What was tuned",
        "",
        f"Every arm on the same learning rates, once each, seed {TUNING_SEED}, on problems apart (`tune.jsonl`); the",
        "control also on which tokens it penalises: all, or those to which the student itself gave at most",
        "`max_probability`. The best of each arm went into the specs and into the table above.",
        "",
        "| arm | learning rate | max_probability | after |",
        "|---|---|---|---|",
    ]
    for run in result["tuning"]["runs"]:
        share = "" if run["max_probability"] is None else f"{run['max_probability']:g}"
        lines.append(f"| {run['arm']} | {run['lr']:g} | {share} | {run['after']:.1%} |")
    return "\n".join(lines) + "\n"
