"""The language stage, properly: every arm tuned on the same grid, then measured on prompts that nobody tuned on.

Learning rates are chosen on `tune.jsonl` with a seed of its own and half of the budget; the results are on
`eval.jsonl`. All runs go through the real services, and every model is downloaded and measured by one piece of code.
Each outcome is kept in `build/experiments/language` as soon as its run ends, so that an experiment that was cut off
goes on where it was.
"""

from __future__ import annotations

import asyncio
import json
import platform
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from experiments.keeping import keep_each, write_kept
from experiments.language_page import METRIC, page, plot
from tutelage.standalone.stack import StackOptions, running
from tutelage.standalone.stages import LANGUAGE
from tutelage.standalone.texts import FIGURES, HeldOut, open_held_out
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.spec import RunSpec, load_spec
from tutelage_client.wire import RunView

ASSETS = Path("examples")
FOLDER = ASSETS / "language"
KEPT = Path("build/experiments/language")
GRID = (3e-5, 1e-4, 3e-4, 1e-3)
TUNING_SEED = 100
TUNING_SHARE = 0.5
SEEDS = (7, 8, 9)
AT_ONCE = 2


@dataclass(frozen=True)
class Plan:
    """One run and the prompts on which its model is measured."""

    spec: RunSpec
    held_out: str

    @property
    def kept(self) -> Path:
        spec = self.spec
        return KEPT / f"{self.held_out}-{spec.name}-{spec.optim.lr:g}-{spec.seed}-{spec.budget.teacher_tokens}.json"


@dataclass(frozen=True)
class Outcome:
    """One run: settings that varied, what it used, and the figures of its model."""

    arm: str
    lr: float
    seed: int
    steps: int
    student_tokens: int
    teacher_tokens: int
    seconds: float
    figures: dict[str, float]


async def language(out: Path) -> None:
    """Tune, then measure; write `out`, the page and the plot beside it."""
    tuned = await outcomes(tuning())
    best = {arm: best_of(tuned, arm) for arm in LANGUAGE.arms}
    measured = await outcomes([plan(arm, best[arm], seed, "eval", 1.0) for seed in SEEDS for arm in LANGUAGE.arms])
    result = {
        "name": "language",
        "command": f"python -m experiments language --json {out}",
        "device": device(),
        "commit": commit(),
        "metric": "reverse KL to the teacher on the student's own text, nats per token",
        "tuning": {"seed": TUNING_SEED, "on": "tune.jsonl", "share": TUNING_SHARE, "runs": [asdict(o) for o in tuned]},
        "seeds": list(SEEDS),
        **(await yardsticks()),
        "runs": [asdict(o) for o in measured],
        "arms": {arm: summary([o for o in measured if o.arm == arm]) for arm in LANGUAGE.arms},
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    out.with_suffix(".md").write_text(page(result))
    plot(result, out.with_suffix(".svg"))
    print(page(result))


def tuning() -> list[Plan]:
    return [plan(arm, lr, TUNING_SEED, "tune", TUNING_SHARE) for lr in GRID for arm in LANGUAGE.arms]


def plan(arm: str, lr: float, seed: int, held_out: str, share: float) -> Plan:
    """The arm's spec with these settings and this share of its budget."""
    spec = load_spec(FOLDER / f"{arm}.toml")
    assert spec.budget.teacher_tokens is not None
    budget = spec.budget.model_copy(update={"teacher_tokens": round(share * spec.budget.teacher_tokens)})
    optim = spec.optim.model_copy(update={"lr": lr})
    return Plan(spec.model_copy(update={"seed": seed, "optim": optim, "budget": budget}), held_out)


def best_of(tuned: Sequence[Outcome], arm: str) -> float:
    """The learning rate with which the arm came closest to the teacher on its own text."""
    return min((o for o in tuned if o.arm == arm), key=lambda o: o.figures[METRIC]).lr


async def outcomes(plans: Sequence[Plan]) -> list[Outcome]:
    """All of them; those that are not kept yet are run, as many at once as the stack has trainers."""
    KEPT.mkdir(parents=True, exist_ok=True)
    missing = [p for p in plans if not p.kept.exists()]
    if missing:
        with tempfile.TemporaryDirectory() as folder:
            await run_all(missing, Path(folder))
    return [Outcome(**json.loads(p.kept.read_text())) for p in plans]


async def run_all(plans: Sequence[Plan], folder: Path) -> None:
    held_out = await asyncio.to_thread(open_set, plans[0].held_out)
    teachers = {LANGUAGE.teacher: LANGUAGE.model(ASSETS, "teacher")}
    options = StackOptions(folder / "data", port=0, teachers=teachers, trainers=AT_ONCE, threads=1)
    async with running(options) as stack, CoordinatorClient(stack.url) as client:

        async def keep(run: RunView, plan: Plan) -> None:
            write_kept(plan.kept, asdict(await outcome(client, run, plan, held_out, folder / "model")))

        await keep_each(client, {(await client.submit(p.spec)).id: p for p in plans}, keep)


def open_set(name: str) -> HeldOut:
    length = load_spec(FOLDER / f"{LANGUAGE.arms[0]}.toml").rollout.max_new_tokens
    return open_held_out(LANGUAGE.model(ASSETS, "teacher"), FOLDER / f"{name}.jsonl", length)


async def outcome(client: CoordinatorClient, run: RunView, plan: Plan, held_out: HeldOut, folder: Path) -> Outcome:
    """What a run that succeeded used, and the figures of its model."""
    model = await client.download_model(run.id, folder / run.id)
    measured = await asyncio.to_thread(held_out.measure, model)
    told = f"lr {plan.spec.optim.lr:g} seed {plan.spec.seed} {METRIC} {measured.figures[METRIC]:.3f}"
    print(f"{plan.spec.name:<8} {told}", flush=True)
    assert run.started_at is not None and run.ended_at is not None
    return Outcome(
        arm=plan.spec.name,
        lr=plan.spec.optim.lr,
        seed=plan.spec.seed,
        steps=run.step,
        student_tokens=run.student_tokens,
        teacher_tokens=run.teacher_tokens,
        seconds=round((run.ended_at - run.started_at).total_seconds(), 1),
        figures=measured.figures,
    )


async def yardsticks() -> dict[str, Any]:
    """The student before, and the teacher's own text."""
    kept = KEPT / "yardsticks.json"
    if not kept.exists():
        held_out = await asyncio.to_thread(open_set, "eval")
        before = await asyncio.to_thread(held_out.measure, LANGUAGE.model(ASSETS, "student"))
        kept.write_text(json.dumps({"before": before.figures, "teacher": held_out.yardstick}))
    return json.loads(kept.read_text())


def device() -> str:
    return f"{platform.machine()}, 2 threads, torch {torch.__version__}"


def commit() -> str:
    asked = ["git", "rev-parse", "HEAD"]
    return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()


def summary(runs: Sequence[Outcome]) -> dict[str, Any]:
    """Mean, lowest and highest of every figure over the seeds."""
    figures = {name: [o.figures[name] for o in runs] for name, *_ in FIGURES}
    return {
        "lr": runs[0].lr,
        "figures": {name: [statistics.mean(v), min(v), max(v)] for name, v in figures.items()},
        "steps": [o.steps for o in runs],
        "teacher_tokens": round(statistics.mean(o.teacher_tokens for o in runs)),
        "student_tokens": round(statistics.mean(o.student_tokens for o in runs)),
        "seconds": round(statistics.mean(o.seconds for o in runs)),
    }
