"""The experiment with two teachers: its specs ask for as much of each domain, and its result is that of its runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from experiments.comparison import Outcome
from experiments.domains import ARMS, SEEDS, TEACHERS, page, result_of

from tutelage_client.spec import load_spec, teacher_for

SPECS = {arm: load_spec(Path(__file__).parents[1] / "examples/domains" / f"{arm}.toml") for arm in ARMS}
AFTER = {
    "sum": {"sum": 0.6, "column": 0.2},
    "column": {"sum": 0.2, "column": 0.7},
    "both": {"sum": 0.58, "column": 0.6},
}


def outcome(arm: str, seed: int) -> Outcome:
    tokens = {f"teacher_tokens/{TEACHERS[domain]}": 1000.0 for domain in TEACHERS if arm in (domain, "both")}
    by_tag = {domain: (0.2, after) for domain, after in AFTER[arm].items()}
    return Outcome(arm, {}, seed, "c", 0.2, 0.5, 40, 10, 1000, by_tag, tokens)


def test_each_domain_is_asked_of_its_own_teacher_in_both_kinds_of_run() -> None:
    both = SPECS["both"]
    for domain, teacher in TEACHERS.items():
        own = SPECS[domain]
        assert teacher_for(both.teachers, domain).name == teacher == own.teachers[0].name
        assert own.rollout.prompts_per_step * len(TEACHERS) == both.rollout.prompts_per_step
        assert (own.objective, own.optim, own.student) == (both.objective, both.optim, both.student)


def test_what_a_domain_keeps_is_its_gain_with_both_over_its_gain_alone() -> None:
    result = result_of([outcome(arm, seed) for seed in SEEDS for arm in ARMS], "command")
    assert result["domains"]["sum"]["kept"] == pytest.approx(0.38 / 0.4)
    assert result["domains"]["column"]["kept"] == pytest.approx(0.4 / 0.5)
    assert "It does not hold here" in page(result)
    assert "| sum | 20.0% | +40.0%" in page(result)


def test_a_domain_whose_own_run_gained_nothing_has_nothing_to_keep() -> None:
    flat = dict.fromkeys(TEACHERS, (0.7, 0.7))
    runs = [replace(outcome(arm, seed), by_tag=flat) for seed in SEEDS for arm in ARMS]
    result = result_of(runs, "command")
    assert result["domains"]["sum"]["kept"] is None
    assert "nothing to keep" in page(result) and "It does not hold here" in page(result)
