"""The soak's part of the page on reliability: what happened, how soon a step followed, and what memory was taken."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from docs.generate.markdown import table

RESULT = Path(__file__).parents[1] / "results" / "soak.json"
INTRODUCTION = """
## At random

`python -m tests.faults soak` has a stack train for {minutes:.1f} minutes while one fault after another, drawn by a
seed, befalls it. Every class has its turn, with a strength and a length of its own each time; each line above that has
tests has a class. A class states how soon the next step must count once its cause is gone: {limits}. Then the record of
each run is read for the invariants. What ends a run, or needs a spec of its own, befalls one beside the main one. Small
disks, control groups and failing system calls take root; who is not leaves these classes out, and the result says so.
A short form is part of `make test`.

The [last one](results/soak.json), of seed {seed} at commit `{commit}` on {cores} cores with a load of {load}: {faults}
faults of {classes} classes in {runs} runs ({modes}), which took {attempts} attempts, and {besides} beside them. Left
out: {left_out}. Violations: {violations}.

"""
BESIDE = "beside"  # the mode of such a run
LIMITS = "{:.0f} s, or {:.0f} s where a lease must run out or a process must start"


def soak_part() -> str:
    found = json.loads(RESULT.read_text())
    limits = sorted({fault["within_s"] for fault in found["faults"]})
    runs = found["runs"]
    told = INTRODUCTION.format(
        minutes=found["seconds"] / 60,
        limits=LIMITS.format(*limits),
        seed=found["seed"],
        commit=found["commit"][:12],
        cores=found["cores"],
        load=found["load"][1],
        faults=len(found["faults"]),
        classes=len({fault["fault"] for fault in found["faults"]}),
        besides=sum(fault["mode"] == BESIDE for fault in found["faults"]),
        left_out="; ".join(f"{each['fault']} ({each['why']})" for each in found["left_out"]) or "none",
        runs=len(runs),
        modes=", ".join(dict.fromkeys(run["mode"] for run in runs)),
        attempts=sum(run["attempts"] for run in runs),
        violations="; ".join(found["broken"]) or "none",
    )
    head = ["row", "fault", "times", "median s to a step", "longest", "limit"]
    memory = ["process", "how many", "lived longest, s", "MiB at its start", "at its end", "largest growth", "limit"]
    return told + table(head, _faults(found["faults"])) + "\n" + table(memory, map(_memory, found["memory"]))


def _faults(faults: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for fault in sorted(faults, key=lambda fault: fault["row"]):
        by_name.setdefault(fault["fault"], []).append(fault)
    return [_row(name, of_name) for name, of_name in by_name.items()]


def _row(name: str, faults: Sequence[Mapping[str, Any]]) -> list[str]:
    took = [fault["progress_s"] for fault in faults]
    figures = f"{median(took):.1f}", f"{max(took):.1f}", f"{faults[0]['within_s']:.0f}"
    return [str(faults[0]["row"]), name, str(len(faults)), *figures]


def _memory(told: Mapping[str, Any]) -> list[str]:
    growth = "-" if told["growth_mib"] is None else f"{told['growth_mib']:.1f}"
    figures = [f"{told[name]:.0f}" for name in ("lived_s", "start_mib", "end_mib")]
    return [told["process"], str(told["processes"]), *figures, growth, f"{told['growth_limit_mib']:.0f}"]
