"""The experiment with two teachers: its specs ask for as much of each domain, and its result is that of its runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from experiments.comparison import Outcome, Setting
from experiments.domains import ARMS, SEEDS, SMALL, TEACHERS, WIDE, Student, result_of
from experiments.domains_page import SHARED, page

from tutelage_client.spec import load_spec, teacher_for

SPECS = {arm: load_spec(Path(__file__).parents[1] / "examples/domains" / f"{arm}.toml") for arm in ARMS}
AFTER = {
    "sum": {"sum": 0.6, "column": 0.2},
    "column": {"sum": 0.2, "column": 0.7},
    "both": {"sum": 0.58, "column": 0.6},
    "both_long": {"sum": 0.6, "column": 0.69},
}


def outcome(arm: str, seed: int, setting: Setting) -> Outcome:
    tokens = {f"teacher_tokens/{TEACHERS[domain]}": 1000.0 for domain in TEACHERS if arm in (domain, *SHARED)}
    by_tag = {domain: (0.2, after) for domain, after in AFTER[arm].items()}
    return Outcome(arm, setting, seed, "c", 0.2, 0.5, 40, 10, 1000, by_tag, tokens)


@pytest.mark.parametrize("shared", SHARED)
def test_each_domain_is_asked_of_its_own_teacher_and_as_often_in_all_runs(shared: str) -> None:
    both = SPECS[shared]
    for domain, teacher in TEACHERS.items():
        own = SPECS[domain]
        assert teacher_for(both.teachers, domain).name == teacher == own.teachers[0].name
        prompts = [spec.rollout.prompts_per_step * spec.optim.steps for spec in (own, both)]
        assert prompts[0] * len(TEACHERS) == prompts[1]
        assert (own.objective, own.optim.lr, own.student) == (both.objective, both.optim.lr, both.student)


def all_outcomes() -> list[Outcome]:
    return [
        outcome(arm, seed, setting)
        for settings in SMALL.lengths.values()
        for seed in SEEDS
        for arm, setting in settings.items()
    ]


def test_what_a_domain_keeps_is_its_gain_with_both_over_its_gain_alone() -> None:
    result = result_of(SMALL, all_outcomes(), "command")
    assert result["lengths"]["40"]["sum"]["shared"]["both"]["kept"] == pytest.approx(0.38 / 0.4)
    assert result["lengths"]["40"]["column"]["shared"]["both"]["kept"] == pytest.approx(0.4 / 0.5)
    assert "- 40 steps, `both`: it does not hold." in page(result)
    assert "- 40 steps, `both_long`: it holds." in page(result)
    assert "- 120 steps, `sum` alone: +0.0 points elsewhere." in page(result)
    assert "| 120 | sum | 20.0% | alone | +40.0%" in page(result)
    assert "- 120 steps: `both` +78.0, `sum` alone +40.0, `column` alone +50.0." in page(result)
    assert "mean of the domains: 88% (40 steps), 88% (120 steps), 88% (480 steps)" in page(result)


def test_where_the_claim_holds_no_reason_is_given_why_it_does_not() -> None:
    runs = [replace(run, by_tag=dict.fromkeys(TEACHERS, (0.2, 0.6))) for run in all_outcomes()]
    assert "Why not" not in page(result_of(SMALL, runs, "command"))


def test_a_domain_whose_own_run_gained_nothing_has_nothing_to_keep() -> None:
    flat = dict.fromkeys(TEACHERS, (0.7, 0.7))
    runs = [replace(run, by_tag=flat) for run in all_outcomes()]
    result = result_of(SMALL, runs, "command")
    assert result["lengths"]["40"]["sum"]["shared"]["both"]["kept"] is None
    assert "nothing to keep" in page(result) and "it holds" not in page(result)


@pytest.mark.parametrize("student", [SMALL, WIDE], ids=lambda student: student.name)
def test_the_page_of_the_results_is_made_from_them(student: Student) -> None:
    results = Path(__file__).parents[1] / "docs/results"
    result = json.loads((results / f"{student.name}.json").read_text())
    assert (result["student"], result["rate"], result["beside"]) == (student.shape, student.rate, student.beside)
    assert (results / f"{student.name}.md").read_text() == page(result)
