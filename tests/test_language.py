"""The language stage's page and specs say what its committed result says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from experiments import language_cause
from experiments.language import GRID, SEEDS, TUNING_SEED
from experiments.language_page import METRIC, page

from tutelage.standalone.stages import LANGUAGE
from tutelage.standalone.texts import FIGURES
from tutelage_client.spec import load_spec

ROOT = Path(__file__).parents[1]
RESULT = json.loads((ROOT / "docs/results/language.json").read_text())


def test_the_page_is_made_from_the_result() -> None:
    assert (ROOT / "docs/results/language.md").read_text() == page(RESULT)
    assert (ROOT / "docs/results/language.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize("arm", LANGUAGE.arms)
def test_every_arm_was_tuned_on_the_same_grid_and_its_spec_carries_the_best(arm: str) -> None:
    tried = [run for run in RESULT["tuning"]["runs"] if run["arm"] == arm]
    assert [run["lr"] for run in tried] == list(GRID)
    best = min(tried, key=lambda run: run["figures"][METRIC])
    assert load_spec(ROOT / "examples/language" / f"{arm}.toml").optim.lr == best["lr"] == RESULT["arms"][arm]["lr"]


@pytest.mark.parametrize("arm", LANGUAGE.arms)
def test_every_arm_ran_with_every_seed_and_spent_the_same_budget(arm: str) -> None:
    runs = [run for run in RESULT["runs"] if run["arm"] == arm]
    assert [run["seed"] for run in runs] == RESULT["seeds"] == list(SEEDS)
    assert TUNING_SEED not in RESULT["seeds"]
    spec = load_spec(ROOT / "examples/language" / f"{arm}.toml")
    assert spec.budget.teacher_tokens is not None
    assert all(0 <= run["teacher_tokens"] / spec.budget.teacher_tokens - 1 < 0.25 for run in runs)


@pytest.mark.parametrize("arm", LANGUAGE.arms)
def test_the_summary_is_that_of_the_runs(arm: str) -> None:
    runs = [run["figures"] for run in RESULT["runs"] if run["arm"] == arm]
    for name, *_ in FIGURES:
        mean, lowest, highest = RESULT["arms"][arm]["figures"][name]
        values = [figures[name] for figures in runs]
        assert (lowest, highest) == (min(values), max(values))
        assert mean == pytest.approx(sum(values) / len(values))


def test_the_page_of_the_cause_is_made_from_its_result_and_text_from_elsewhere_does_more_than_half() -> None:
    result = json.loads((ROOT / "docs/results/language_cause.json").read_text())
    assert (ROOT / "docs/results/language_cause.md").read_text() == language_cause.page(result, RESULT)
    gained = language_cause.lowered(result["arms"]["any_text"]["figures"], result["before"])
    assert all(gained > language_cause.lowered(s["figures"], RESULT["before"]) / 2 for s in RESULT["arms"].values())
