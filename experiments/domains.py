"""Two teachers on one student: does each domain keep what a run with its own teacher alone would have gained?

Three seeds of each arm from one cold start: one run for each domain, and one or two for both, whose lines are routed by
tag. All take as many prompts of a domain, on average, so the teachers' tokens of a domain are about equal; they are
counted and published. `both` takes them in as many steps as a domain's own run, each twice as large; `both_long` in
twice the steps, each as large. Nothing is tuned: all arms of a student take one learning rate.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from experiments.comparison import Outcome, Planned, Setting, made_from, outcomes, write_result
from experiments.domains_page import SHARED, page
from tutelage.standalone.stages import Stage
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.errors import InvalidInput
from tutelage_client.wire import RunView

MADE = Path("build/domains")
TEACHERS = {"sum": "adder", "column": "columns"}
SEEDS = (7, 8, 9)
ARMS = (*TEACHERS, *SHARED)


@dataclass(frozen=True)
class Student:
    """One of those that `examples/domains/make_models.py` makes, and how it is taught.

    name: of the experiment; folder: below MADE; beside: the experiment with a student of another size
    lengths: by the steps of a domain's own run, the arms, each with what is set beside its spec
    """

    name: str
    folder: str
    shape: str
    rate: str
    beside: str
    lengths: Mapping[int, Mapping[str, Setting]]


SMALL = Student(
    name="domains",
    folder="student",
    shape="two layers, 64 dimensions",
    rate="The learning rate is that which examples/skill was tuned to",
    beside="domains_wide",
    lengths={
        40: {arm: {} for arm in ARMS},
        120: {arm: {"steps": 120} for arm in (*TEACHERS, "both")},
        480: {arm: {"steps": 480} for arm in (*TEACHERS, "both")},
    },
)
WIDE = Student(
    name="domains_wide",
    folder="wide",
    shape="three layers, 128 dimensions",
    rate="Learning rate (of 0.001 and 0.0003) and steps were set after trials with seed 100 and problems apart",
    beside="domains",
    lengths={400: {arm: {"steps": 400, "lr": 3e-4, "eval_every": 400} for arm in (*TEACHERS, "both")}},
)
STAGE = Stage(
    name="domains",
    title="One student, two teachers",
    task="Sums with carries, and sums of digits without.",
    teacher="adder",
    arms=ARMS,
    reading="",
    tag="domain",
)


async def taught(student: Student, out: Path) -> None:
    """Run all arms of a student, write `out` and the page beside it.

    Raises:
        InvalidInput: the models have not been made yet.
    """
    if not (MADE / student.folder).is_dir():
        raise InvalidInput(
            f"no {student.folder} in {MADE}; make them with: python examples/domains/make_models.py --out {MADE}"
        )
    held_out = str((MADE / "eval.jsonl").resolve())
    planned = [
        Planned(STAGE, arm, setting, seed, held_out, MADE / student.folder)
        for settings in student.lengths.values()
        for seed in SEEDS
        for arm, setting in settings.items()
    ]
    models = {"adder": Path("examples/skill/teacher"), "columns": MADE / "columns"}
    runs = await outcomes(planned, tokens_of_teachers, models)
    result = result_of(student, runs, f"python -m experiments {student.name} --json {out}")
    write_result(out, result, page(result))


domains = partial(taught, SMALL)
domains_wide = partial(taught, WIDE)


async def tokens_of_teachers(client: CoordinatorClient, run: RunView) -> dict[str, float]:
    """What each teacher computed for the run."""
    last = (await client.metrics(run.id))[-1]
    alone = {teacher["name"]: run.teacher_tokens for teacher in run.spec["teachers"]}
    return {f"teacher_tokens/{name}": last.get(f"teacher_tokens/{name}", own) for name, own in alone.items()}


def result_of(student: Student, runs: Sequence[Outcome], command: str) -> dict[str, Any]:
    return {
        "name": student.name,
        "student": student.shape,
        "rate": student.rate,
        "beside": student.beside,
        "command": command,
        "seeds": sorted({run.seed for run in runs}),
        **made_from(runs),
        "lengths": {
            str(steps): {domain: kept(of_length(runs, settings), domain, settings) for domain in TEACHERS}
            for steps, settings in student.lengths.items()
        },
        "runs": [asdict(run) for run in runs],
    }


def of_length(runs: Sequence[Outcome], settings: Mapping[str, Setting]) -> list[Outcome]:
    return [run for run in runs if run.setting == settings.get(run.arm)]


def kept(runs: Sequence[Outcome], domain: str, arms: Iterable[str]) -> dict[str, Any]:
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
