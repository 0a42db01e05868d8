"""Arms side by side: every arm tuned on the same grid, then measured with seeds and prompts that nobody tuned on.

Tuning uses `tune.jsonl` and a seed of its own, the results `eval.jsonl` and other seeds. All runs go through the real
services, as in the demo. Each outcome is kept in `build/experiments` as soon as its run ends, so that an experiment
that was cut off goes on; with another spec, other data or other models a run is made anew.
"""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from experiments.keeping import keep_each, set_up, write_kept
from tutelage.standalone.arms import first_and_last
from tutelage.standalone.graded import tags
from tutelage.standalone.stack import Stack, StackOptions, running
from tutelage.standalone.stages import Stage
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.spec import RunSpec, load_spec, parse_spec
from tutelage_client.wire import RunView

EXAMPLES = Path("examples")
KEPT = Path("build/experiments")
TUNING_SEED = 100
AT_ONCE = 2

# Where a setting of the grid stands in the spec.
PLACES = {
    "lr": ("optim", "lr"),
    "max_probability": ("objective", "max_probability"),
    "max_new_tokens": ("rollout", "max_new_tokens"),
    "steps": ("optim", "steps"),
    "eval_every": ("eval", "every"),
}
Setting = Mapping[str, float]
Measure = Callable[[CoordinatorClient, RunView], Awaitable[dict[str, float]]]
Beside = Callable[[Stack], AbstractAsyncContextManager[object]]


@dataclass(frozen=True)
class Comparison:
    """arms: for each, its grid of settings; measure: what is measured on a finished run beside its own evaluations.

    prompts: the folder of `tune.jsonl` and `eval.jsonl` as seen from the stage's
    teachers: models by name, the stage's own where None; beside: runs beside the stack, such as another teacher
    """

    stage: Stage
    arms: Mapping[str, Sequence[Setting]]
    seeds: Sequence[int]
    measure: Measure | None = None
    prompts: str = "."
    teachers: Mapping[str, Path] | None = None
    beside: Beside = nullcontext


@dataclass(frozen=True)
class Planned:
    """One run to come. student: another model than the spec's"""

    stage: Stage
    arm: str
    setting: Setting
    seed: int
    held_out: str
    student: Path | None = None

    def spec(self) -> RunSpec:
        folder = EXAMPLES / self.stage.name
        spec = load_spec(folder / f"{self.arm}.toml").model_dump(mode="json")
        spec["seed"] = self.seed
        spec["data"]["eval"] = str((folder / self.held_out).resolve())
        if self.student is not None:
            spec["student"]["model"] = str(self.student.resolve())
        for name, value in self.setting.items():
            section, key = PLACES[name]
            spec[section][key] = value
        return parse_spec(spec)

    def kept(self, models: Mapping[str, Path]) -> Path:
        """Where its outcome is kept; another set-up is another file. models: of the teachers by name"""
        return KEPT / self.stage.name / f"{self.arm}-{self.seed}-{set_up(self.spec(), models)}.json"


@dataclass(frozen=True)
class Outcome:
    """One run: what varied, accuracy before and after (by_tag: for each tag), its cost, what else was measured."""

    arm: str
    setting: Setting
    seed: int
    commit: str
    before: float
    after: float
    steps: int
    student_tokens: int
    teacher_tokens: int
    by_tag: dict[str, tuple[float, float]] = field(default_factory=dict)
    measured: dict[str, float] = field(default_factory=dict)


async def compare(comparison: Comparison, command: str) -> dict[str, Any]:
    """Tune, measure, and put both into one result.

    Raises:
        TutelageError: a run did not succeed.
    """
    stage, arms, folder = comparison.stage, comparison.arms, comparison.prompts
    tuning = [
        Planned(stage, arm, setting, TUNING_SEED, f"{folder}/tune.jsonl") for arm in arms for setting in arms[arm]
    ]
    tuned = await outcomes(tuning, None, comparison.teachers, comparison.beside)
    best = {arm: max((o for o in tuned if o.arm == arm), key=lambda o: o.after).setting for arm in arms}
    final = [Planned(stage, arm, best[arm], seed, f"{folder}/eval.jsonl") for seed in comparison.seeds for arm in arms]
    measured = await outcomes(final, comparison.measure, comparison.teachers, comparison.beside)
    return {
        "name": stage.name,
        "command": command,
        "seeds": list(comparison.seeds),
        "tuning": {"seed": TUNING_SEED, "on": "tune.jsonl", "runs": [asdict(o) for o in tuned]},
        **made_from([*tuned, *measured]),
        "runs": [asdict(o) for o in measured],
        "arms": {arm: summary([o for o in measured if o.arm == arm]) for arm in arms},
    }


def made_from(runs: Sequence[Outcome]) -> dict[str, str]:
    """The commits and the machine of these runs."""
    return {
        "commit": ", ".join(sorted({o.commit for o in runs})),
        "device": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
    }


async def outcomes(
    planned: Sequence[Planned],
    measure: Measure | None,
    models: Mapping[str, Path] | None = None,
    beside: Beside = nullcontext,
) -> list[Outcome]:
    """All of them; those that are not kept yet are run, as many at once as the stack has trainers.

    models: of the teachers by name, where they are not the stage's own; beside: what runs beside the stack
    """
    stage = planned[0].stage
    teachers = {stage.teacher: stage.model(EXAMPLES, "teacher")} if models is None else dict(models)
    kept = [plan.kept(teachers) for plan in planned]
    missing = [(plan, path) for plan, path in zip(planned, kept, strict=True) if not path.exists()]
    if missing:
        with tempfile.TemporaryDirectory() as folder:
            options = StackOptions(Path(folder), port=0, teachers=teachers, trainers=AT_ONCE)
            async with running(options) as stack, beside(stack), CoordinatorClient(stack.url) as client:

                async def keep(run: RunView, plan: tuple[Planned, Path]) -> None:
                    write_kept(plan[1], asdict(await outcome(client, run, plan[0], measure)))

                plans = {(await client.submit(plan.spec())).id: (plan, path) for plan, path in missing}
                await keep_each(client, plans, keep)
    return [Outcome(**json.loads(path.read_text())) for path in kept]


async def outcome(client: CoordinatorClient, run: RunView, plan: Planned, measure: Measure | None) -> Outcome:
    """What came of a run that succeeded."""
    rows = await client.metrics(run.id)
    before, after = first_and_last(rows, "accuracy")
    print(f"{plan.arm:<16} {worded(plan.setting)}, seed {plan.seed}: {before:.3f} -> {after:.3f}", flush=True)
    return Outcome(
        arm=plan.arm,
        setting=plan.setting,
        seed=plan.seed,
        commit=commit(),
        before=before,
        after=after,
        steps=run.step,
        student_tokens=run.student_tokens,
        teacher_tokens=run.teacher_tokens,
        by_tag={tag: first_and_last(rows, f"accuracy/{tag}") for tag in tags(rows)},
        measured=await measure(client, run) if measure else {},
    )


def summary(runs: Sequence[Outcome]) -> dict[str, Any]:
    """An arm over its seeds."""
    after = [o.after for o in runs]
    return {
        "setting": runs[0].setting,
        "before": statistics.mean(o.before for o in runs),
        "after": statistics.mean(after),
        "lowest": min(after),
        "highest": max(after),
        "steps": round(statistics.mean(o.steps for o in runs)),
        "student_tokens": round(statistics.mean(o.student_tokens for o in runs)),
        "teacher_tokens": round(statistics.mean(o.teacher_tokens for o in runs)),
    }


def commit() -> str:
    """The commit that a result was made from."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def worded(setting: Setting) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in setting.items())


def tuning_table(result: dict[str, Any]) -> list[str]:
    """What was tried, as lines of Markdown."""
    rows = (f"| {run['arm']} | {worded(run['setting'])} | {run['after']:.1%} |" for run in result["tuning"]["runs"])
    return ["| arm | setting | after |", "|---|---|---|", *rows]


def write_result(out: Path, result: dict[str, Any], page: str) -> None:
    """The result, and the page of the docs beside it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    out.with_suffix(".md").write_text(page)
    print(page)
